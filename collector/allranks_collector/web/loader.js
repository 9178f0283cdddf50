// Joins what many charts ask for at one moment into few requests.
import { getSeries } from "./api.js";

const GATHER_MS = 15;
const KEYS_PER_REQUEST = 8;

/** A loader of one run's series: `load(source, key, params)` gives the list of that key's series.
 *
 * Charts that come into view together, or are told together that data moved, ask with the same parameters: their
 * keys travel in one request, as a browser opens at most six connections to one server.
 */
export function seriesLoader(run) {
  let waiting = new Map();
  let timer = 0;

  const send = async (source, params, asked) => {
    try {
      const series = await getSeries(run, source, { ...params, key: [...asked.keys()] });
      const byKey = new Map([...asked.keys()].map((key) => [key, []]));
      for (const one of series) byKey.get(one.key)?.push(one);
      for (const [key, promises] of asked) for (const { resolve } of promises) resolve(byKey.get(key));
    } catch (error) {
      for (const promises of asked.values()) for (const { reject } of promises) reject(error);
    }
  };

  const flush = () => {
    timer = 0;
    const batches = waiting;
    waiting = new Map();
    for (const { source, params, keys } of batches.values()) {
      const entries = [...keys];
      for (let i = 0; i < entries.length; i += KEYS_PER_REQUEST) {
        send(source, params, new Map(entries.slice(i, i + KEYS_PER_REQUEST)));
      }
    }
  };

  return function load(source, key, params) {
    const name = JSON.stringify([source, params]);
    if (!waiting.has(name)) waiting.set(name, { source, params, keys: new Map() });
    const { keys } = waiting.get(name);
    timer ||= setTimeout(flush, GATHER_MS);
    return new Promise((resolve, reject) => {
      if (!keys.has(key)) keys.set(key, []);
      keys.get(key).push({ resolve, reject });
    });
  };
}
