// The collector's HTTP API (see /docs on the collector), as functions that give plain objects.

// A request that hangs must not hold up those after it.
const TIMEOUT_MS = 20_000;
// Ranks that are silent are waited for, and each is then asked by a signal.
const ASK_TIMEOUT_MS = 120_000;
/** After a failure that may pass, the next try. */
export const RETRY_MS = 2_000;

/** A request that failed: `status` is the HTTP status, or 0 when the collector did not answer at all. */
class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Whether to ask again may help: the collector is gone or in trouble, and not the question wrong. */
export const mayPass = (error) => !(error instanceof ApiError) || error.status === 0 || error.status >= 500;

/** Query string of the parameters that are set; an array gives its name once per item. */
export function query(params) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined && item !== null && item !== "") search.append(name, String(item));
    }
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

async function request(method, path, params, timeoutMs) {
  let response;
  try {
    response = await fetch(`/api${path}${query(params)}`, {
      method, headers: { accept: "application/json" }, signal: AbortSignal.timeout(timeoutMs),
    });
  } catch {
    throw new ApiError("The collector does not answer.", 0);
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new ApiError(`The collector's answer (HTTP ${response.status}) is not JSON.`, response.status);
  }
  if (!response.ok) throw new ApiError(String(body?.error ?? `HTTP ${response.status}`), response.status);
  return body;
}

const get = (path, params = {}) => request("GET", path, params, TIMEOUT_MS);

const runPath = (id, rest = "") => `/runs/${encodeURIComponent(id)}${rest}`;

export const getRuns = (filters) => get("/runs", filters);
export const getRun = (id) => get(runPath(id));
export const getRanks = (id, attempt) => get(runPath(id, "/ranks"), { attempt }).then((body) => body.ranks);
export const getWhy = (id, attempt) => get(runPath(id, "/why"), { attempt });
/** States of ranks over time, in the collector's clock: `{from_ns, until_ns, states, ranks}`. */
export const getTimeline = (id, attempt) => get(runPath(id, "/timeline"), { attempt });
/** Attempts as lineage, and what the run's time went to: `{attempts, goodput}`. */
export const getAttempts = (id) => get(runPath(id, "/attempts"));
export const getStragglers = (id, attempt) => get(runPath(id, "/stragglers"), { attempt });
export const getDifferences = (id, attempt) => get(runPath(id, "/differences"), { attempt });
/** Where ranks stood when they were last asked: `{asked_at, text, groups, ranks}`. */
export const getStacks = (id, params) => get(runPath(id, "/stacks"), params);
/** Asks all ranks where they stand, and answers when those that can have said so. */
export const askStacks = (id) => request("POST", runPath(id, "/stacks"), { threads: false }, ASK_TIMEOUT_MS);
export const getKeys = (id) => get(runPath(id, "/keys")).then((body) => body.keys);
export const getObjects = (id, params) => get(runPath(id, "/objects"), params).then((body) => body.objects);
export const getEvents = (id, params) => get(runPath(id, "/events"), params).then((body) => body.events);

/** Lines that ranks printed: `{lines, next, previous, newest, total, offset}`. */
export const getLogs = (id, params) => get(runPath(id, "/logs"), params);
/** Where a browser downloads these lines as text. */
export const logsTextUrl = (id, params) => `/api${runPath(id, "/logs.txt")}${query(params)}`;

export const getFiles = (id) => get(runPath(id, "/files"));

/** Bucketed series. `source` is "metrics" or "system". */
export const getSeries = (id, source, params) => get(runPath(id, `/${source}`), params).then((body) => body.series);

/** Where a browser downloads `what` ("metrics", "events", …) of a run. */
export const exportUrl = (id, what, format) => `/api${runPath(id, "/export")}${query({ what, format })}`;

/** Where a browser downloads a file of a run; the host, because several may have one of this name. */
export const fileUrl = (id, { name, host }) =>
  `/api${runPath(id, "/files/")}${name.split("/").map(encodeURIComponent).join("/")}${query({ host })}`;
export const streamUrl = (run) => `/api/stream${query({ run })}`;
