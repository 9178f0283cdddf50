// The smallest shared state: a value that components follow, and a bus that they listen to.
import { useEffect, useState } from "./lib.js";

/** A value with followers. */
export function observable(initial) {
  let value = initial;
  const followers = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const follower of [...followers]) follower(value);
    },
    follow(follower) {
      followers.add(follower);
      return () => followers.delete(follower);
    },
  };
}

/** The observable's value; the component is drawn again when it changes. */
export function useObservable(source) {
  const [value, setValue] = useState(source.get());
  useEffect(() => {
    setValue(source.get());
    return source.follow(setValue);
  }, [source]);
  return value;
}

/** Listeners that are told of moments rather than of a value. */
export function bus() {
  const listeners = new Set();
  return {
    emit(data) {
      for (const listener of [...listeners]) listener(data);
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
