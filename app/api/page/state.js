// What is asked for: the state, its form in the address, and the request that follows from it.

import { $, label, numberText } from "./dom.js";

export const PAGE_SIZE = 20;
export const DEBOUNCE_MS = 120;

/** What is asked for; the URL holds all of it. `filters` maps a field to its test, e.g. {price: {gte: 20}}. */
export const state = { collection: null, query: "", prefix: false, filters: {}, sort: null };

/** Every collection that is served; the first is the default and is left out of the address. */
export const collections = [];

/** What the address asks for and this service does not have, for a person to read. */
export const ignored = [];

export const fieldsOf = (type) => state.collection.fields.filter((field) => field.type === type);
export const facetFields = () => fieldsOf("keyword").filter((field) => field.facet).map((field) => field.name);
export const isIdle = () => !state.query && !Object.keys(state.filters).length;

export function searchRequest(extra = {}) {
  const request = { collection: state.collection.name, k: PAGE_SIZE, offset: 0, facets: facetFields(), ...extra };
  const clauses = Object.entries(state.filters).map(([field, test]) => ({ field, ...test }));
  if (state.query) Object.assign(request, { query: state.query, prefix: state.prefix });
  if (clauses.length) request.filter = { all: clauses };
  if (state.sort) request.sort = [state.sort];
  return request;
}

// ---------------------------------------------------------------- the address

function writeFilter(field, test) {
  if (test.in) return test.in.map((value) => `${field}:${value}`);
  return [`${field}:${test.gte ?? ""}..${test.lte ?? ""}`];
}

function readFilters(entries) {
  const filters = {};
  for (const entry of entries) {
    const [name, text] = [entry.slice(0, entry.indexOf(":")), entry.slice(entry.indexOf(":") + 1)];
    const field = state.collection.fields.find((known) => known.name === name);
    if (!field || field.type === "text") ignored.push(`a filter by “${name}”`);
    if (field?.type === "keyword") (filters[name] ??= { in: [] }).in.push(text);
    if (field?.type === "boolean") filters[name] = { in: [text === "true"] };
    if (field?.type === "number") {
      const range = readRange(...text.split(".."));
      if (range) filters[name] = range;
    }
  }
  return filters;
}

/** Two texts → {gte, lte} with only the bounds that are numbers, or null when neither is. */
export function readRange(low = "", high = "") {
  const range = {};
  if (low.trim() !== "" && Number.isFinite(Number(low))) range.gte = Number(low);
  if (high.trim() !== "" && Number.isFinite(Number(high))) range.lte = Number(high);
  return "gte" in range || "lte" in range ? range : null;
}

function urlOfState() {
  const params = new URLSearchParams();
  if (state.query) params.set("q", state.query);
  if (state.collection !== collections[0]) params.set("collection", state.collection.name);
  for (const [field, test] of Object.entries(state.filters)) writeFilter(field, test).forEach((text) => params.append("f", text));
  if (state.sort) params.set("sort", `${state.sort.field}:${state.sort.order}`);
  return location.pathname + (params.size ? `?${params}` : "");
}

export function readUrl() {
  const params = new URLSearchParams(location.search);
  ignored.length = 0;
  const named = params.get("collection");
  const collection = collections.find(({ name }) => name === named) ?? collections[0];
  if (named && named !== collection.name) ignored.push(`the collection “${named}”`);
  state.collection = collection;
  state.query = params.get("q") ?? "";
  state.prefix = history.state?.prefix ?? false;
  state.filters = readFilters(params.getAll("f"));
  const [field, order] = (params.get("sort") ?? "").split(":");
  const sortable = fieldsOf("number").some(({ name }) => name === field) && ["asc", "desc"].includes(order);
  state.sort = sortable ? { field, order } : null;
  if (params.get("sort") && !sortable) ignored.push(`the order “${params.get("sort")}”`);
  $("query").value = state.query;
  typingEntry = false;
  clearTimeout(debounce);
}

// ---------------------------------------------------------------- changes by the user's hand

let typingEntry = false; // one history entry per burst of typing, not one per key

/** The state changed: remember it in the history, then tell whoever searches. */
export function commit({ typing = false } = {}) {
  const replace = (typing && typingEntry) || urlOfState() === location.pathname + location.search;
  history[replace ? "replaceState" : "pushState"]({ prefix: state.prefix }, "", urlOfState());
  typingEntry = typing;
  document.dispatchEvent(new Event("commit"));
}

let debounce = 0;

export function typed() {
  clearTimeout(debounce);
  debounce = setTimeout(() => {
    state.query = $("query").value.trim();
    state.prefix = !/\s$/.test($("query").value);
    commit({ typing: true });
  }, DEBOUNCE_MS);
}

/** Search for these words as they stand: Enter, an example, or nothing at all. */
export function searchFor(words) {
  clearTimeout(debounce);
  $("query").value = words;
  state.query = words.trim();
  state.prefix = false;
  commit();
}

export function setFilter(field, test) {
  if (test) state.filters[field] = test;
  else delete state.filters[field];
  commit();
}

export function toggleValue(field, value) {
  const before = state.filters[field]?.in ?? [];
  const after = before.includes(value) ? before.filter((other) => other !== value) : [...before, value];
  setFilter(field, after.length ? { in: after } : null);
}

export function clearFilters() {
  state.filters = {};
  commit();
}

/** Every active filter as {text, remove}, one per value. */
export function activeFilters() {
  return Object.entries(state.filters).flatMap(([field, test]) => {
    if (!test.in) return [{ text: `${label(field)} ${rangeText(field, test)}`, remove: () => setFilter(field, null) }];
    if (test.in[0] === true) return [{ text: label(field), remove: () => setFilter(field, null) }];
    return test.in.map((value) => ({ text: `${label(field)}: ${value}`, remove: () => toggleValue(field, value) }));
  });
}

function rangeText(field, { gte, lte }) {
  if (lte === undefined) return `from ${numberText(field, gte)}`;
  if (gte === undefined) return `up to ${numberText(field, lte)}`;
  return `${numberText(field, gte)}–${numberText(field, lte)}`;
}
