// The search page. Start at `begin()`; `search()` is its heart: the state is asked of the service, the answer is drawn.

import { drawAnswer, drawControls, drawDeepest, drawMore, drawStart, drawTimings, shown } from "./answer.js";
import { $, counted, el, label } from "./dom.js";
import { buildFilters } from "./filters.js";
import { cancelRetry, clearFailure, failed, retryNow } from "./outage.js";
import { ask } from "./service.js";
import { collections, commit, fieldsOf, ignored, isIdle, readUrl, searchFor, searchRequest, state, typed } from "./state.js";

const WAITING_AFTER_MS = 250; // faster answers show no sign of waiting, so nothing flickers
const wide = matchMedia("(min-width: 760px)");

// ---------------------------------------------------------------- search

let latest = 0; // only the answer to the latest question is drawn, whatever order answers arrive in
let inFlight = null;

async function search({ append = false } = {}) {
  const ticket = ++latest;
  inFlight?.abort();
  inFlight = new AbortController();
  cancelRetry();
  drawControls();
  if (isIdle()) {
    clearFailure();
    return drawStart();
  }
  const waiting = setTimeout(() => document.body.classList.add("waiting"), WAITING_AFTER_MS);
  try {
    const page = append ? { offset: shown.hits.length, facets: [] } : {};
    const answer = await ask("v1/search", { body: searchRequest(page), signal: inFlight.signal });
    if (ticket !== latest) return;
    clearFailure();
    if (append) drawMore(answer);
    else drawAnswer(answer);
  } catch (error) {
    if (ticket !== latest) return;
    if (append && error.status === 422) drawDeepest();
    else failed(error, () => search({ append }));
  } finally {
    clearTimeout(waiting);
    if (ticket === latest) document.body.classList.remove("waiting");
  }
}

// ---------------------------------------------------------------- keyboard

function onKey(event) {
  if ($("details").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "/" && !writing) {
    event.preventDefault();
    $("query").focus();
    $("query").select();
  } else if (event.key === "Escape" && !event.target.matches("select, #filters *")) {
    event.preventDefault();
    if ($("query").value) searchFor("");
    $("query").focus();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    moveAmongHits(event);
  }
}

/** Down from the search box enters the list; up from its first card leaves it. */
function moveAmongHits(event) {
  const titles = [...document.querySelectorAll("#hits .title")];
  const here = titles.indexOf(event.target.closest(".card")?.querySelector(".title"));
  if (here < 0 && event.target !== $("query")) return;
  const next = here + (event.key === "ArrowDown" ? 1 : -1);
  if (next >= titles.length || (here < 0 && next < 0)) return;
  event.preventDefault();
  const target = next < 0 ? $("query") : titles[next];
  target.focus();
  target.closest(".card")?.scrollIntoView({ block: "nearest" });
}

// ---------------------------------------------------------------- start

let drawn = null;

/** What the address asked for in vain; gone with the next thing that a person does. */
function drawIgnored() {
  $("ignored").textContent = `The address asks for what is not here: ${ignored.join(", ")}.`;
  $("ignored").hidden = !ignored.length;
}

/** Whatever on the page depends on the collection alone; does nothing when it is the one already shown. */
function drawCollection() {
  if (drawn === state.collection) return;
  drawn = state.collection;
  $("collection").value = state.collection.name;
  buildFilters();
  const orders = fieldsOf("number").flatMap(({ name }) => [
    el("option", { value: `${name}:asc` }, `${label(name)}, low to high`),
    el("option", { value: `${name}:desc` }, `${label(name)}, high to low`),
  ]);
  $("sort").replaceChildren(el("option", { value: "" }, "Relevance"), ...orders);
  const { title, name, products, version, attribution } = state.collection;
  const about = [title ?? label(name), counted(products, "product"), `version ${version}`, attribution];
  $("about").textContent = about.filter(Boolean).join(" · ");
}

function listen() {
  $("query").addEventListener("input", typed);
  $("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    searchFor($("query").value);
    if (matchMedia("(pointer: coarse)").matches) $("query").blur(); // puts the phone's keyboard away
  });
  $("clear").addEventListener("click", () => {
    searchFor("");
    $("query").focus();
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("collection").addEventListener("change", () => {
    const collection = collections.find(({ name }) => name === $("collection").value);
    Object.assign(state, { collection, filters: {}, sort: null });
    commit();
  });
  $("sort").addEventListener("change", () => {
    const [field, order] = $("sort").value.split(":");
    state.sort = order ? { field, order } : null;
    commit();
  });
  $("timings-toggle").addEventListener("click", () => {
    const open = $("timings-toggle").ariaExpanded !== "true";
    $("timings-toggle").ariaExpanded = String(open);
    $("timings").hidden = !open;
    drawTimings();
  });
  $("more").addEventListener("click", () => search({ append: true }));
  $("details").addEventListener("click", (event) => event.target === $("details") && $("details").close());
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // a fragment in the address would count as a step in the history
    $("results").focus();
  });
  addEventListener("online", retryNow);
  addEventListener("keydown", onKey);
  document.addEventListener("commit", () => {
    ignored.length = 0;
    drawIgnored();
    drawCollection();
    search();
  });
  addEventListener("popstate", () => {
    readUrl();
    drawIgnored();
    drawCollection();
    search();
  });
  wide.addEventListener("change", () => ($("drawer").open = wide.matches));
  $("drawer").open = wide.matches;
}

async function begin() {
  try {
    const { data } = await ask("v1/collections");
    collections.push(...data.collections);
    clearFailure();
  } catch (error) {
    return failed(error, begin);
  }
  $("collection").replaceChildren(...collections.map(({ name, title }) => el("option", { value: name }, title ?? label(name))));
  $("picker").hidden = collections.length < 2;
  const early = $("query").value; // typed before the collections were known
  readUrl();
  drawIgnored();
  drawCollection();
  listen();
  if (early && early !== state.query) searchFor(early);
  else search();
}

$("outage-retry").addEventListener("click", retryNow);
begin();
