// Filters: the form of a collection's fields, the counts of its facets, and the chips of what is active.

import { $, el, label } from "./dom.js";
import {
  activeFilters, clearFilters, DEBOUNCE_MS, facetFields, fieldsOf, readRange, setFilter, state, toggleValue,
} from "./state.js";

const FACET_VALUES = 8;
const LISTED_VALUES = 50;

export function drawChips() {
  const filters = activeFilters();
  const focused = [...$("chips").children].indexOf(document.activeElement);
  const chips = filters.map(({ text, remove }) =>
    el("button", { type: "button", className: "chip", "aria-label": `Remove filter ${text}`, onclick: remove }, text));
  if (chips.length > 1) chips.push(el("button", { type: "button", className: "quiet", onclick: clearFilters }, "Clear all"));
  $("chips").replaceChildren(...chips);
  $("chips").hidden = !chips.length;
  $("drawer-count").textContent = filters.length ? ` (${filters.length})` : "";
  if (focused >= 0) (chips[Math.min(focused, chips.length - 1)] ?? $("query")).focus();
}

/** The filter form of a collection, built once; answers then only redraw the values of its facets. */
export function buildFilters() {
  unfolded.clear();
  const builders = { keyword: facetBox, number: rangeBox, boolean: switchBox };
  const fields = state.collection.fields.filter(({ type, facet }) => type in builders && (type !== "keyword" || facet));
  $("filters").replaceChildren(...fields.map((field) => builders[field.type](field.name)));
}

const facetBox = (name) =>
  el("fieldset", { id: `f-${name}`, hidden: true }, el("legend", {}, label(name)), el("div"));

function switchBox(name) {
  const onchange = () => setFilter(name, box.checked ? { in: [true] } : null);
  const box = el("input", { type: "checkbox", id: `f-${name}`, onchange });
  return el("label", { className: "choice switch" }, el("span", {}, label(name)), box);
}

function rangeBox(name) {
  let timer = 0;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => row.isConnected && takeRange(name), 3 * DEBOUNCE_MS); // the collection may have changed
  };
  const bound = (end, text) => el("input", {
    type: "number", id: `f-${name}-${end}`, step: "any", inputMode: "decimal", placeholder: text,
    "aria-label": `${label(name)} ${text}`, oninput: later,
  });
  const dash = el("span", { "aria-hidden": "true" }, "–");
  const row = el("div", { className: "range" }, bound("gte", "from"), dash, bound("lte", "to"));
  const fault = el("p", { className: "range-fault", id: `f-${name}-fault`, role: "alert", hidden: true });
  fault.textContent = "“From” is above “to”.";
  return el("fieldset", {}, el("legend", {}, label(name)), row, fault);
}

const boundsOf = (name) => [$(`f-${name}-gte`), $(`f-${name}-lte`)];

function takeRange(name) {
  const bounds = boundsOf(name);
  const range = readRange(...bounds.map((input) => input.value));
  const crossed = range?.gte > range?.lte;
  bounds.forEach((input) => input.setAttribute("aria-invalid", String(crossed)));
  $(`f-${name}-fault`).hidden = !crossed;
  if (!crossed && JSON.stringify(range) !== JSON.stringify(state.filters[name] ?? null)) setFilter(name, range);
}

/** The controls as the state has them, except where someone is writing. */
export function syncFilters() {
  for (const field of fieldsOf("boolean")) $(`f-${field.name}`).checked = Boolean(state.filters[field.name]);
  for (const field of fieldsOf("number")) syncRange(field.name);
}

function syncRange(name) {
  const { gte, lte } = state.filters[name] ?? {};
  const [low, high] = boundsOf(name);
  if (document.activeElement !== low) low.value = gte ?? "";
  if (document.activeElement !== high) high.value = lte ?? "";
}

const unfolded = new Set(); // facets of which every value is shown

export function drawFacets(facets) {
  const focused = document.activeElement?.id;
  for (const name of facetFields()) {
    const chosen = state.filters[name]?.in ?? [];
    const values = facets[name] ?? [];
    const missing = chosen.filter((value) => !values.some((entry) => entry.value === value));
    drawFacet(name, [...values, ...missing.map((value) => ({ value, count: 0 }))], chosen);
  }
  if (focused && document.activeElement?.id !== focused) $(focused)?.focus();
}

/** The service lists the most frequent values and no more than so many. */
function unfolding(count) {
  return count < LISTED_VALUES ? `Show all ${count}` : `Show the ${count} most frequent`;
}

function drawFacet(name, values, chosen) {
  const visible = unfolded.has(name) ? values : values.filter(({ value }, i) => i < FACET_VALUES || chosen.includes(value));
  const rows = visible.map(({ value, count }) => {
    const [checked, onchange] = [chosen.includes(value), () => toggleValue(name, value)];
    const box = el("input", { type: "checkbox", id: `f-${name}:${value}`, checked, onchange });
    const number = el("span", { className: "count" }, count.toLocaleString("en"));
    return el("label", { className: "choice" }, box, el("span", {}, String(value)), number);
  });
  const unfold = () => {
    unfolded.add(name);
    drawFacet(name, values, chosen);
    $(`f-${name}:${values[FACET_VALUES].value}`)?.focus();
  };
  if (visible.length < values.length) {
    rows.push(el("button", { type: "button", className: "quiet", onclick: unfold }, unfolding(values.length)));
  }
  $(`f-${name}`).lastElementChild.replaceChildren(...rows);
  $(`f-${name}`).hidden = !values.length;
}
