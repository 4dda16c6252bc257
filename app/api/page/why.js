// Why a hit stands where it stands: its contributions, as a table of bars that adds up to the raw score.

import { el, figure, label } from "./dom.js";
import { ask, ServiceError } from "./service.js";
import { searchRequest } from "./state.js";

// What the signals are to a reader; others are shown under their own name.
const SIGNALS = {
  dense: "Meaning", bm25_title: "Words in the title", bm25_all: "Words anywhere", coverage: "Share of the words",
  complete: "All the words", phrase: "Words side by side", head: "What it is", numbers: "Numbers",
  excluded: "Has what it must not",
};

/** The same question, asked for this one position with `explain`; the contributions' ordered sum is the raw score. */
export async function explained(hit, position) {
  const { data } = await ask("v1/search", { body: searchRequest({ explain: true, offset: position, k: 1, facets: [] }) });
  const same = data.hits.find(({ id }) => id === hit.id);
  if (!same?.explanation) throw new ServiceError("The catalogue has changed since this answer. Search again to see why.", 409);
  return explanationTable(same);
}

function explanationTable({ score, explanation: { raw, contributions, evidence, missing } }) {
  const sum = contributions.reduce((total, { contribution }) => total + contribution, 0);
  const scale = scaleOf(contributions.map(({ contribution }) => contribution));
  const verdict = sum === raw ? ["= ", el("span", { className: "spoken" }, "the "), "raw score"] : [`raw score is ${raw}`];
  const table = el("table", { className: "why" },
    el("caption", {}, `Each signal adds to the raw score; calibrated, it reads as relevance ${score.toFixed(2)}.`),
    el("thead", {}, el("tr", {}, head("Signal"), head("Value", "inner"), head("Weight", "inner"), head("Adds"),
      el("td", { className: "balance" }))),
    el("tbody", {}, ...contributions.filter(({ weight }) => weight).map((entry) => contributionRow(entry, scale))),
    el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "Sum"), cell("", "inner"), cell("", "inner"),
      cell(figure(sum), "sum"), el("td", {}, ...verdict))));
  return el("div", {}, table, evidence.length + missing.length ? wordList(evidence, missing) : null);
}

const cell = (content, className = "") => el("td", { className }, content);
const head = (text, className = "") => el("th", { scope: "col", className }, text);

/** One axis for all rows: `zero` is where nothing is added, so that what subtracts points the other way. */
function scaleOf(values) {
  const low = Math.min(0, ...values);
  const span = Math.max(0, ...values) - low || 1;
  return { zero: -low / span, span };
}

function contributionRow({ name, value, weight, contribution }, { zero, span }) {
  const bar = el("span", { className: contribution < 0 ? "lever minus" : "lever", "aria-hidden": "true" });
  const length = Math.abs(contribution) / span;
  bar.style.setProperty("--zero", `${zero * 100}%`);
  bar.style.setProperty("--from", contribution < 0 ? zero - length : zero);
  bar.style.setProperty("--span", length);
  return el("tr", {}, el("th", { scope: "row" }, SIGNALS[name] ?? label(name)), cell(figure(value), "inner"), cell(figure(weight), "inner"),
    cell(figure(contribution)), cell(bar, "balance"));
}

/** The query's words that the product has, with what they met there; then those that it lacks. */
function wordList(evidence, missing) {
  const met = evidence.map(({ query, product, field, kind }) => el("li", {}, el("b", {}, query),
    ` ${product.join(", ")}${kind === "exact" ? "" : ` (${kind})`}${field === "title" ? ", in the title" : ""}`));
  const lacking = missing.map((word) => el("li", {}, el("b", {}, word), " missing"));
  return el("ul", { className: "terms", "aria-label": "The query’s words" }, ...met, ...lacking);
}
