// Client-side routes: the address bar is the state that can be shared.
import { useEffect } from "./lib.js";
import { observable, useObservable } from "./observable.js";

const read = () => ({ path: location.pathname, query: Object.fromEntries(new URLSearchParams(location.search)) });
const route = observable(read());
addEventListener("popstate", () => route.set(read()));

/** Goes to an address of this page. `replace` leaves no step in the history. */
function navigate(url, { replace = false } = {}) {
  if (url === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  route.set(read());
  if (!replace) scrollTo(0, 0);
}

/** Sets (or, with "" or null, removes) query parameters of the present address. */
export function setQuery(changes, { replace = true } = {}) {
  const search = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") search.delete(name);
    else search.set(name, value);
  }
  const text = search.toString();
  const url = location.pathname + (text ? `?${text}` : "");
  if (url === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  route.set(read());
}

/** The present path and query. */
export const useRoute = () => useObservable(route);

/** The run's id (or prefix, or name) of the address /runs/{id}; null elsewhere. */
export function runOf(path) {
  const match = /^\/runs\/([^/]+)\/?$/.exec(path);
  if (!match) return null;
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}

export const runUrl = (id) => `/runs/${encodeURIComponent(id)}`;

/** The address of a run's tab, the rest of the present query kept but for `changes` ("" or null: without). */
export function tabUrl(id, tab, query, changes = {}) {
  const search = new URLSearchParams(
    Object.entries({ ...query, tab, ...changes }).filter(([, value]) => value !== null && value !== undefined && value !== ""),
  );
  return `${runUrl(id)}?${search}`;
}

/** Turns plain clicks on links of the dashboard into navigation without a page load. */
export function useLinks() {
  useEffect(() => {
    const onClick = (event) => {
      const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
      const link = plain && !event.defaultPrevented && event.target.closest?.("a[href]");
      if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
      if (link.pathname !== "/" && runOf(link.pathname) === null) return;
      event.preventDefault();
      navigate(link.pathname + link.search);
    };
    document.addEventListener("click", onClick);
    return () => document.removeEventListener("click", onClick);
  }, []);
}

/** Names the tab: the most particular word first, as tabs are cut on the right. */
export function useTitle(...parts) {
  const title = [...parts.filter(Boolean), "allranks"].join(" · ");
  useEffect(() => {
    document.title = title;
  }, [title]);
}
