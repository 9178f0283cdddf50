// One place that names the vendored libraries.
import { Component, createContext, h, render } from "./vendor/preact-11.2.0.js";
import {
  useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "./vendor/preact-hooks-11.2.0.js";
import htm from "./vendor/htm-3.1.1.js";

/** Markup as a template string. What is put in with ${} becomes text nodes and properties, never HTML. */
export const html = htm.bind(h);

/** A component that is drawn again only when one of its props is another value.
 *
 * @param {(props: object) => any} render_
 * @param {string[]} [passive] props that do not count: fetched objects are new each time though their text is the same
 */
export function memo(render_, passive = []) {
  return class Memo extends Component {
    shouldComponentUpdate(next) {
      return Object.keys(next).some((name) => !passive.includes(name) && !Object.is(next[name], this.props[name]));
    }

    render(props) {
      return render_(props);
    }
  };
}

export {
  createContext, render, useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
};
