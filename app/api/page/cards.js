// A hit as a card, with its two disclosures.

import { openDetails } from "./details.js";
import { el, label, numberText, track } from "./dom.js";
import { tile, titleOf } from "./product.js";
import { ask } from "./service.js";
import { state } from "./state.js";
import { explained } from "./why.js";

export function card(hit, position) {
  const { product } = hit;
  const panel = el("div", { className: "panel", hidden: true });
  const blurb = product.description ?? [product.bullets].flat()[0];
  return el("li", { className: "card" },
    el("article", { "aria-label": titleOf(product) },
      el("div", { className: "face" },
        tile(product),
        el("div", {},
          el("h3", {}, el("button", { type: "button", className: "title", onclick: () => openDetails(hit) },
            el("span", {}, titleOf(product)))),
          meta(product),
          blurb ? el("p", { className: "blurb" }, String(blurb)) : null,
          actions(hit, position, panel)),
        side(hit)),
      panel));
}

/** Brand, category and what else can be filtered by, in the collection's order; the price stands apart. */
function meta(product) {
  const parts = state.collection.fields.flatMap(({ name, type, facet }) => {
    const value = product[name];
    if (type === "text" || (type === "keyword" && !facet)) return [];
    if (value === null || value === undefined || value === "" || name === "price") return [];
    if (type === "boolean") return [stockText(name, value)];
    if (type === "number") return [el("span", {}, `${label(name)} ${numberText(name, value)}`)];
    return [el("span", {}, [value].flat().join(", "))];
  });
  return parts.length ? el("p", { className: "meta" }, ...parts) : null;
}

function stockText(name, value) {
  const words = name === "in_stock" ? ["In stock", "Out of stock"] : [label(name), `Not ${label(name).toLowerCase()}`];
  return el("span", { className: value ? "" : "out" }, words[value ? 0 : 1]);
}

function side({ product, score }) {
  const price = typeof product.price === "number" ? el("p", { className: "price" }, numberText("price", product.price)) : null;
  const scored = state.query && typeof score === "number";
  return el("div", { className: "side" }, price, scored ? relevance(score) : null);
}

const relevance = (score) =>
  el("div", { className: "score" }, el("span", {}, `relevance ${score.toFixed(2)}`), track(score));

/** Two disclosures over one panel: opening one closes the other. */
function actions(hit, position, panel) {
  panel.id = `panel-${position}`;
  const toggle = (text, fill) => {
    const button = el("button", { type: "button", className: "quiet", "aria-expanded": "false", "aria-controls": panel.id });
    button.append(text, el("span", { className: "unseen" }, ` ${titleOf(hit.product)}`));
    button.addEventListener("click", () => disclose(button, panel, fill));
    return button;
  };
  const why = state.query ? toggle("Why?", () => explained(hit, position)) : null;
  return el("div", { className: "actions" }, why, toggle("Similar", () => similar(hit.id)));
}

async function disclose(button, panel, fill) {
  const open = button.ariaExpanded !== "true";
  for (const other of button.parentElement.children) other.ariaExpanded = String(open && other === button);
  panel.hidden = !open;
  if (!open) return;
  panel.replaceChildren(el("p", { className: "wait" }, "Asking …"));
  const content = await fill().catch((error) => el("p", { role: "alert" }, error.message));
  if (button.ariaExpanded === "true") panel.replaceChildren(content);
}

async function similar(id) {
  const where = new URLSearchParams({ k: 6, collection: state.collection.name });
  const { data } = await ask(`v1/products/${encodeURIComponent(id)}/similar?${where}`);
  if (!data.hits.length) return el("p", { className: "wait" }, "Nothing in the catalogue is close to this.");
  const cards = data.hits.map((hit) => el("li", {}, smallCard(hit)));
  return el("ul", { className: "shelf", "aria-label": "Similar products" }, ...cards);
}

function smallCard(hit) {
  const { product } = hit;
  const price = typeof product.price === "number" ? el("small", {}, numberText("price", product.price)) : null;
  return el("button", { type: "button", className: "small", onclick: () => openDetails(hit) },
    tile(product), el("span", {}, titleOf(product), price));
}
