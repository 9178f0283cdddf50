// One place that names the vendored libraries.
import { Component, createContext, h, render } from "./vendor/preact-11.2.0.js";
import {
  useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "./vendor/preact-hooks-11.2.0.js";
import htm from "./vendor/htm-3.1.1.js";

/** Markup as a template string. What is put in with ${} becomes text nodes and properties, never HTML. */
export const html = htm.bind(h);

/** A component that is drawn again only when one of its props is another value. */
export function memo(render_) {
  return class Memo extends Component {
    shouldComponentUpdate(next) {
      const props = this.props;
      const names = Object.keys(next);
      return names.length !== Object.keys(props).length || names.some((name) => !Object.is(next[name], props[name]));
    }

    render(props) {
      return render_(props);
    }
  };
}

export {
  createContext, render, useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
};
