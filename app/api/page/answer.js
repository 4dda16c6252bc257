// The answer on the page: status, hits, the empty states, and which controls show.

import { card } from "./cards.js";
import { $, announce, counted, el, label, pill, track } from "./dom.js";
import { drawChips, drawFacets, syncFilters } from "./filters.js";
import { activeFilters, clearFilters, commit, fieldsOf, isIdle, PAGE_SIZE, searchFor, state } from "./state.js";

/** What is on the page: the hits drawn so far and the answer they came with. */
export const shown = { hits: [], answer: null };

export function drawAnswer({ data, stages }) {
  shown.hits = data.hits;
  shown.answer = { ...data, stages };
  $("found").hidden = false;
  $("hits").replaceChildren(...data.hits.map(card));
  $("start").hidden = true;
  drawStatus();
  drawFacets(data.facets ?? {});
  drawNone();
  drawMoreButton();
}

export function drawMore({ data, stages }) {
  const known = new Set(shown.hits.map((hit) => hit.id)); // live changes may shift a product onto the next page
  const fresh = data.hits.filter((hit) => !known.has(hit.id));
  const cards = fresh.map((hit, i) => card(hit, shown.hits.length + i));
  shown.hits.push(...fresh);
  shown.answer = { ...data, facets: shown.answer.facets, stages };
  $("hits").append(...cards);
  cards[0]?.querySelector(".title").focus();
  drawStatus();
  drawMoreButton(data.hits.length < PAGE_SIZE);
}

function drawMoreButton(exhausted = false) {
  $("more-row").hidden = exhausted || !shown.hits.length || shown.hits.length >= shown.answer.total.value;
}

export function drawDeepest() {
  $("more-row").hidden = true;
  announce("There are no more results at this depth.");
}

function drawStatus() {
  const { total, took_ms, tier, cached, degraded, corrected, relaxed } = shown.answer;
  const found = (total.relation === "gte" ? "at least " : "") + counted(total.value, "product");
  const rest = [`${took_ms.toFixed(1)} ms`, `tier ${tier}`, ...(cached ? ["cached"] : [])];
  const searched = relaxed ? relaxed.text : corrected;
  const without = relaxed ? ` (nothing found with “${relaxed.dropped.join(" ")}”)` : "";
  const instead = (searched ? ` for “${searched}”` : "") + without;
  $("status").replaceChildren(el("strong", {}, found), `${instead} · ${rest.join(" · ")}`);
  announce(found + instead + (reading() ? `. ${reading()}` : ""));
  const reasons = (degraded?.reasons ?? []).join(", ");
  $("degraded").textContent = `This answer is simpler than usual${reasons ? `: ${reasons}` : ""}.`;
  $("degraded").hidden = !degraded?.is;
  $("reading").textContent = reading();
  $("reading").hidden = !reading();
  drawTimings();
}

/** What a person should know of how the words were read; empty where nothing is remarkable. */
function reading() {
  const { truncated, word_matches: matches } = shown.answer;
  const alone = matches === 0 && shown.hits.length ? ["No product has any of these words; these come closest in meaning."] : [];
  return [...alone, ...(truncated ? ["Of so long a query only the beginning was read for its meaning."] : [])].join(" ");
}

export function drawTimings() {
  if ($("timings-toggle").ariaExpanded !== "true") return;
  const { stages, version, calibrated } = shown.answer;
  const longest = Math.max(...stages.map(({ ms }) => ms), 0.001);
  const rows = stages.flatMap(({ name, ms }) => [
    el("dt", {}, name), el("dd", {}, track(ms / longest)), el("dd", { className: "figure" }, `${ms.toFixed(2)} ms`),
  ]);
  const link = calibrated === false ? " · relevance by the shipped calibration, not this catalogue's own" : "";
  $("timings").replaceChildren(
    stages.length ? el("dl", { className: "bars" }, ...rows) : el("p", {}, "This answer came without stage timings."),
    el("p", { className: "aside-note" }, `version ${version}${link}`),
  );
}

/** Which pieces show in the state as it stands; called before the answer is known, so that controls react at once. */
export function drawControls() {
  const browsing = !state.query;
  document.title = state.query ? `${state.query} – aisle` : "aisle";
  document.body.classList.toggle("idle", isIdle());
  $("sort").options[0].textContent = browsing ? "Popularity" : "Relevance";
  $("sort").value = state.sort ? `${state.sort.field}:${state.sort.order}` : "";
  $("sort").parentElement.hidden = $("sort").options.length < 2;
  syncFilters();
  drawChips();
}

/** Leave no answer on the page. */
export function clearAnswer() {
  shown.hits = [];
  shown.answer = null;
  $("hits").replaceChildren();
  for (const id of ["found", "more-row", "none", "start"]) $(id).hidden = true;
}

export function drawStart() {
  const { title, name, examples = [], products } = state.collection;
  clearAnswer();
  document.body.classList.remove("waiting");
  const browse = fieldsOf("boolean").map((field) => pill(`Browse: ${label(field.name).toLowerCase()}`, () => {
    state.filters[field.name] = { in: [true] };
    commit();
  }));
  $("start").replaceChildren(
    el("h1", {}, "What are you looking for?"),
    el("p", {}, `${title ?? label(name)}, ${counted(products, "product")}. Type above, or try one of these.`),
    el("div", { className: "pills" }, ...examples.map((words) => pill(words, () => searchFor(words))), ...browse),
  );
  $("start").hidden = false;
  announce("");
}

function drawNone() {
  $("none").hidden = shown.hits.length > 0;
  if (shown.hits.length) return;
  const filters = activeFilters();
  const subject = state.query ? `No products match “${state.query}”` : "No products match";
  const removals = filters.map(({ text, remove }) => pill(`Without ${text}`, remove));
  if (filters.length > 1) removals.push(pill("Without any filter", clearFilters));
  const examples = (state.collection.examples ?? []).map((words) => pill(words, () => searchFor(words)));
  $("none").replaceChildren(
    el("h2", {}, filters.length ? `${subject} with these filters` : subject),
    el("p", {}, filters.length ? "Removing a filter widens the search." : "Try fewer or other words, or one of these."),
    el("div", { className: "pills" }, ...(filters.length ? removals : examples)),
  );
}
