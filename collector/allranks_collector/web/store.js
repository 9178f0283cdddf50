// Hooks that bring the collector's data and the reader's preferences into components.
import { useEffect, useRef, useState } from "./lib.js";
import { observable, useObservable } from "./observable.js";
import { mayPass, RETRY_MS, streamUrl } from "./api.js";
import { openStream } from "./stream.js";

/** "connecting", "live" or "lost": how the page stands with the collector. "none" where it shows nothing that moves. */
export const connection = observable("none");

/** Fetched data that stays on screen while newer data is on its way.
 *
 * Answers that arrive out of order are dropped. When `deps` change the old data is forgotten; `refresh()` keeps it.
 *
 * @returns {{data: any, error: Error | null, loading: boolean, refresh: () => void}}
 */
export function useResource(load, deps) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const turn = useRef(0);
  const running = useRef(false);
  const again = useRef(false);
  const timer = useRef(0);
  const latest = useRef(load);
  latest.current = load;

  const fetchNow = async (mine) => {
    clearTimeout(timer.current);
    running.current = true;
    try {
      const data = await latest.current();
      if (turn.current === mine) setState({ data, error: null, loading: false });
    } catch (error) {
      if (turn.current === mine) {
        setState((old) => ({ data: old.data, error, loading: false }));
        if (mayPass(error)) timer.current = setTimeout(refresh, RETRY_MS);
      }
    }
    if (turn.current !== mine) return;
    running.current = false;
    if (again.current) {
      again.current = false;
      fetchNow(mine);
    }
  };

  // At most one request is under way: a refresh that comes meanwhile runs after it.
  const refresh = useRef(() => {
    if (running.current) again.current = true;
    else fetchNow(turn.current);
  }).current;

  useEffect(() => {
    turn.current += 1;
    again.current = false;
    setState({ data: null, error: null, loading: true });
    fetchNow(turn.current);
    return () => {
      turn.current += 1;
      running.current = false;
      clearTimeout(timer.current);
    };
  }, deps);

  return { ...state, refresh };
}

/** Calls `fn` at once, and then at most every `intervalMs`; the last call is never lost. Timers end with the component. */
export function useThrottled(fn, intervalMs) {
  const latest = useRef(fn);
  latest.current = fn;
  const timer = useRef(0);
  const last = useRef(-Infinity);
  useEffect(() => () => clearTimeout(timer.current), []);
  return useRef(() => {
    if (timer.current) return;
    const wait = last.current + intervalMs - performance.now();
    const fire = () => {
      timer.current = 0;
      last.current = performance.now();
      latest.current();
    };
    if (wait <= 0) fire();
    else timer.current = setTimeout(fire, wait);
  }).current;
}

/** Listens to the collector while the component is there.
 *
 * `onEvent(topic, data)` for each note; `onLive()` whenever the stream opens, as what was said before it did is missed.
 */
export function useStream(run, onEvent, onLive) {
  const handlers = useRef({ onEvent, onLive });
  handlers.current = { onEvent, onLive };
  useEffect(() => {
    connection.set("connecting");
    const close = openStream(
      streamUrl(run),
      (topic, data) => handlers.current.onEvent(topic, data),
      (state) => {
        connection.set(state);
        if (state === "live") handlers.current.onLive();
      },
    );
    return () => {
      close();
      connection.set("none");
    };
  }, [run]);
}

const preferences = new Map();

function preference(name, initial) {
  if (!preferences.has(name)) {
    let stored = null;
    try {
      stored = JSON.parse(localStorage.getItem(`allranks.${name}`));
    } catch {
      // No storage, or somebody else's text in it: the default serves.
    }
    preferences.set(name, observable(stored !== null && typeof stored === typeof initial ? stored : initial));
  }
  return preferences.get(name);
}

/** A choice of the reader's that outlives the page: `[value, setValue]`, shared by all components that name it. */
export function usePreference(name, initial) {
  const source = preference(name, initial);
  const value = useObservable(source);
  const set = useRef((next) => {
    source.set(next);
    try {
      localStorage.setItem(`allranks.${name}`, JSON.stringify(next));
    } catch {
      // Without storage the choice lasts as long as the page.
    }
  }).current;
  return [value, set];
}

const clock = observable(Date.now() / 1000);
setInterval(() => clock.set(Date.now() / 1000), 1_000);

/** The time in unix seconds, once a second. */
export const useNow = () => useObservable(clock);
