// One product in full, in a dialog.

import { $, el, label, numberText, safeAddress } from "./dom.js";
import { tile, titleOf } from "./product.js";
import { ask } from "./service.js";
import { state } from "./state.js";

let opened = 0;

/** Shows at once what the hit brought, then the whole product. */
export async function openDetails({ id, product: known }) {
  const ticket = ++opened;
  const where = new URLSearchParams({ collection: state.collection.name });
  drawDetails(known, detailsOf(known));
  if (!$("details").open) $("details").showModal();
  try {
    const { data } = await ask(`v1/products/${encodeURIComponent(id)}?${where}`);
    const product = data.product ?? data;
    if (ticket === opened) drawDetails(product, detailsOf(product));
  } catch (error) {
    if (ticket === opened) drawDetails(known, [el("p", { role: "alert" }, error.message), ...detailsOf(known)]);
  }
}

function drawDetails(product, body) {
  const onclick = () => $("details").close();
  const close = el("button", { type: "button", className: "close", "aria-label": "Close", onclick }, "×");
  $("details").replaceChildren(
    el("div", { className: "details-head" }, tile(product), el("h2", { id: "details-title" }, titleOf(product)), close),
    el("div", { className: "details-body" }, ...body));
  if ($("details").open) close.focus();
}

const OWN_PLACE = new Set(["id", "title", "description", "bullets", "image", "url", "link", "attrs"]);

function detailsOf(product) {
  const entries = Object.entries({ ...product, ...product.attrs });
  const facts = entries.filter(([name, value]) => !OWN_PLACE.has(name) && factText(name, value));
  const bullets = [product.bullets ?? []].flat();
  const address = safeAddress(product.url) ?? safeAddress(product.link);
  return [
    product.description ? el("p", {}, String(product.description)) : null,
    bullets.length ? el("ul", { className: "bullets" }, ...bullets.map((bullet) => el("li", {}, String(bullet)))) : null,
    facts.length ? el("dl", { className: "facts" }, ...facts.flatMap(fact)) : null,
    address ? el("p", {}, link(address)) : null,
  ].filter(Boolean);
}

const fact = ([name, value]) => [el("dt", {}, label(name)), el("dd", {}, factText(name, value))];
const link = (address) =>
  el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, `View at ${new URL(address).host}`);

function factText(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return numberText(name, value);
  return [value].flat().filter((part) => ["string", "number"].includes(typeof part) && part !== "").join(", ");
}
