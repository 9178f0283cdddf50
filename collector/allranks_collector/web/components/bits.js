// Small parts that every page uses.
import { html, useEffect, useRef, useState } from "../lib.js";
import { ago, duration, moment } from "../format.js";
import { useNow } from "../store.js";

/** A coloured dot and the state in words: colour is never the only sign. */
export function State({ state }) {
  return html`<span class="state" data-state=${state}><i class="dot" aria-hidden="true"></i>${state}</span>`;
}

/** "3m ago", kept up to date, with the exact moment as its title. */
export function Ago({ time }) {
  const now = useNow();
  if (time === null || time === undefined) return html`<span class="none">–</span>`;
  return html`<time title=${moment(time)} datetime=${new Date(time * 1000).toISOString()}>${ago(time, now)}</time>`;
}

/** The time between two moments; it grows as long as there is no end. */
export function Span({ from, to }) {
  const now = useNow();
  if (from === null || from === undefined) return html`<span class="none">–</span>`;
  return html`<span>${duration(Math.max(0, Math.round((to ?? now) - from)))}</span>`;
}

/** A button that copies `value` and says that it did; `text` stands for a value that is too long to show. */
export function Copy({ value, label, text = value }) {
  const [copied, setCopied] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
    } catch {
      // Clipboards are for secure contexts: a plain-http host that is not loopback has none.
      return;
    }
    setCopied(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setCopied(false), 1_200);
  };
  return html`<button type="button" class="copy" onClick=${copy} aria-label=${`Copy ${label}`} title=${`Copy ${label}`}>
    <code>${text}</code><span aria-live="polite">${copied ? "copied" : "copy"}</span>
  </button>`;
}

/** One choice out of a few, as joined buttons. `options` is [[value, label] …]. */
export function Segmented({ label, value, options, onChange, testid }) {
  return html`<div class="segmented" role="group" aria-label=${label} data-testid=${testid}>
    ${options.map(([option, text]) => html`<button type="button" key=${option} data-value=${option}
      aria-pressed=${String(option === value)} onClick=${() => onChange(option)}>${text}</button>`)}
  </div>`;
}

/** A search box; Escape empties it. */
export function Filter({ label, value, onChange, testid }) {
  return html`<input type="search" class="filter" placeholder=${label} aria-label=${label} value=${value}
    data-testid=${testid} spellcheck="false" autocomplete="off"
    onInput=${(event) => onChange(event.currentTarget.value)}
    onKeyDown=${(event) => { if (event.key === "Escape") onChange(""); }} />`;
}

/** A button with a sheet under it, which closes on a click elsewhere and on Escape. */
export function Menu({ label, children }) {
  const menu = useRef(null);
  useEffect(() => {
    const close = (event) => {
      const outside = event.type === "keydown" ? event.key === "Escape" : !menu.current.contains(event.target);
      if (!outside || !menu.current.open) return;
      menu.current.open = false;
      if (event.type === "keydown") menu.current.querySelector("summary").focus();
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("keydown", close);
    };
  }, []);
  return html`<details class="menu" ref=${menu}><summary>${label}</summary><div class="sheet">${children}</div></details>`;
}

/** What stands where there is nothing (yet), or where something went wrong. */
export function Notice({ title, children, kind = "empty" }) {
  return html`<div class=${`notice ${kind}`} role=${kind === "error" ? "alert" : undefined}>
    <strong>${title}</strong>${children && html`<div>${children}</div>`}
  </div>`;
}
