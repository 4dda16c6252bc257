// A key, where the service asks for one: kept until this tab is closed, and sent to this service alone.

import { $ } from "./dom.js";

const PLACE = "aisle-key";
const SENDABLE = /^[!-~]+$/; // what a header may hold

let again = null;
let known = read();

function read() {
  try {
    return sessionStorage.getItem(PLACE);
  } catch {
    return null; // a browser that keeps nothing for pages
  }
}

function keep(key) {
  known = key;
  try {
    sessionStorage.setItem(PLACE, key);
  } catch {
    // then it is known until the page is left
  }
}

/** The headers that a question carries. */
export function credentials() {
  return known ? { Authorization: `Bearer ${known}` } : {};
}

/** Show the field that takes a key; `then` asks the service anew. */
export function askForKey(detail, then) {
  again = then;
  say(known ? `The service did not take this key: ${detail}.` : "This service answers to those who have a key.");
  $("key-form").hidden = false;
  $("key").select();
  $("key").focus();
}

export function hideKeyForm() {
  $("key-form").hidden = true;
}

function say(text) {
  $("key-text").textContent = text;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  if (!SENDABLE.test(given)) return say("A key has letters, digits and signs, and no spaces.");
  keep(given);
  $("key").value = "";
  hideKeyForm();
  $("query").focus();
  again?.();
});
