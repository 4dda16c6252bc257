// When the service fails: what is said, what is kept, and when it is asked again.

import { clearAnswer, shown } from "./answer.js";
import { $ } from "./dom.js";
import { askForKey, hideKeyForm } from "./key.js";

const RETRY_MS = [1000, 2000, 4000, 8000, 15_000];

let attempts = 0;
let retryTimer = 0;
let retry = null;

/** A passing failure keeps what is shown and tries again by itself; a refusal says what was refused. */
export function failed(error, again) {
  if (!error.passing) return refused(error, again);
  retry = again;
  const delay = Math.max(error.retryAfterMs, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
  const kept = shown.hits.length ? " What you see is the last answer." : "";
  if ($("outage").hidden) $("outage-text").textContent = error.message + kept;
  $("outage").hidden = false;
  countDown(Math.round(delay / 1000));
}

function refused(error, again) {
  clearFailure();
  clearAnswer(); // an older one would pass for the answer to what was refused
  if ([401, 403].includes(error.status)) return askForKey(error.message, again);
  $("refusal").textContent = error.message;
  $("refusal").hidden = false;
}

function countDown(seconds) {
  $("outage-next").textContent = seconds ? `Trying again in ${seconds} s.` : "Trying again …";
  retryTimer = setTimeout(() => (seconds ? countDown(seconds - 1) : retryNow()), seconds ? 1000 : 0);
}

/** A new question takes the place of the one that was to be tried again. */
export function cancelRetry() {
  clearTimeout(retryTimer);
  retry = null;
}

export function retryNow() {
  const again = retry;
  cancelRetry();
  again?.();
}

/** The service answered, or nothing is asked of it any more. */
export function clearFailure() {
  cancelRetry();
  attempts = 0;
  $("outage").hidden = true;
  $("refusal").hidden = true;
  hideKeyForm();
}
