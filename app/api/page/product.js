// How a product looks, wherever it appears.

import { el, safeAddress } from "./dom.js";
import { state } from "./state.js";

export const titleOf = (product) => String(product.title || "Untitled product");

/** A calm stand-in for a picture: initials on a hue that follows from the title; the picture itself where it may be shown. */
export function tile(product) {
  const words = titleOf(product).match(/[\p{L}\p{N}]+/gu) ?? ["?"];
  const initials = words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
  const node = el("div", { className: "tile", "aria-hidden": "true" }, initials);
  const hash = [...titleOf(product)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  node.style.setProperty("--hue", hash);
  const address = state.collection.show_images ? safeAddress(product.image) : null;
  if (address) {
    const onerror = () => node.replaceChildren(initials);
    node.replaceChildren(el("img", { src: address, alt: "", loading: "lazy", referrerPolicy: "no-referrer", onerror }));
  }
  return node;
}
