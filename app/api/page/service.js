// The service over HTTP: one way to ask it, one kind of failure.

import { credentials } from "./key.js";

const ANSWER_WITHIN_MS = 10_000;

export class ServiceError extends Error {
  constructor(message, status, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    this.passing = [0, 429, 502, 503, 504].includes(status);
  }
}

const unreachable = () => new ServiceError("The search service does not answer.", 0);
const PASSING_TEXT = {
  429: "The search service is busy.",
  502: "The search service does not answer.",
  503: "The search service is not ready.",
  504: "The search took too long.",
};

/** GET, or POST when there is a body. Returns {data, stages}; throws ServiceError, or AbortError when abandoned. */
export async function ask(path, { body, signal } = {}) {
  const limit = AbortSignal.timeout(ANSWER_WITHIN_MS);
  const options = { signal: signal ? AbortSignal.any([signal, limit]) : limit, headers: credentials() };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  if (body) options.headers["Content-Type"] = "application/json";
  try {
    const response = await fetch(path, options);
    if (!response.ok) throw await refusal(response);
    return { data: await response.json(), stages: stageTimings(response.headers.get("Server-Timing")) };
  } catch (error) {
    if (error instanceof ServiceError || error.name === "AbortError") throw error;
    throw unreachable();
  }
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const text = PASSING_TEXT[response.status] ?? problem.detail ?? problem.title ?? `The service answered ${response.status}.`;
  return new ServiceError(String(text), response.status, 1000 * Number(response.headers.get("Retry-After") ?? 0) || 0);
}

/** "lexical;dur=0.4, cache;dur=0.1" → [{name, ms}], in running order. */
function stageTimings(header) {
  return (header ?? "").split(",").flatMap((entry) => {
    const [name, ...params] = entry.trim().split(";");
    const duration = params.find((param) => param.trim().startsWith("dur="));
    return name && duration ? [{ name, ms: Number(duration.trim().slice(4)) }] : [];
  });
}
