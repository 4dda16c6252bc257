// Elements and texts. Everything from the catalogue becomes a text node or a checked address, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (`aria-*`, `role`, `scope`) and `on*` listeners; strings become text nodes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "scope") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A bar filled to `share` of its track. Set through the CSSOM, which a strict content security policy allows. */
export function track(share) {
  const node = el("span", { className: "track", "aria-hidden": "true" });
  node.style.setProperty("--share", Math.min(1, Math.max(0, share)));
  return node;
}

export const pill = (text, onclick) => el("button", { type: "button", className: "pill", onclick }, text);

export const label = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");
export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
export const figure = (value) => (typeof value === "number" ? value.toFixed(3).replace("-", "−") : "–");

export function numberText(name, value) {
  const digits = name === "price" && !Number.isInteger(value) ? 2 : 0;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: 2 });
}

/** The address if it is an absolute http(s) one, else null: `javascript:` and its kin never become links. */
export function safeAddress(text) {
  if (typeof text !== "string" || !URL.canParse(text)) return null;
  return ["http:", "https:"].includes(new URL(text).protocol) ? text : null;
}

let announcement = 0;
/** Told to screen readers once things have settled, so that typing does not chatter. */
export function announce(text) {
  clearTimeout(announcement);
  announcement = setTimeout(() => ($("live").textContent = text), 600);
}
