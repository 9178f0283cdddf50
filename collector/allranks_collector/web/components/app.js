// The frame of every page: top bar, connection state, and the page that the address names.
import { html } from "../lib.js";
import { useObservable } from "../observable.js";
import { runOf, useLinks, useRoute, useTitle } from "../router.js";
import { connection } from "../store.js";
import { useTheme } from "../theme.js";
import { Notice } from "./bits.js";
import { RunPage } from "./run_page.js";
import { RunsPage } from "./runs_page.js";

export function App() {
  useLinks();
  const { path } = useRoute();
  const { theme, toggle } = useTheme();
  const id = runOf(path);
  const page = path === "/" ? html`<${RunsPage} />`
    : id !== null ? html`<${RunPage} key=${id} id=${id} theme=${theme} />` : html`<${NotFound} />`;
  return html`
    <header class="topbar">
      <a class="brand" href="/" aria-label="allranks: all runs">
        <img src="/static/icon.svg" width="18" height="18" alt="" /><b>allranks</b>
      </a>
      <nav aria-label="Main"><a href="/" aria-current=${path === "/" ? "page" : undefined}>Runs</a></nav>
      <${Connection} />
      <button type="button" class="quiet" onClick=${toggle} data-testid="theme-toggle"
        aria-label=${`Switch to the ${theme === "dark" ? "light" : "dark"} theme`}>
        ${theme === "dark" ? "☀" : "☾"}
      </button>
    </header>
    <main>${page}</main>`;
}

function Connection() {
  const state = useObservable(connection);
  const words = { connecting: "connecting…", live: "live", lost: "reconnecting…" };
  if (state === "none") return html`<span class="connection"></span>`;
  return html`<span class="connection" data-testid="connection" data-state=${state} role="status"
    title=${state === "lost" ? "The collector does not answer. What you see is the last that it said; this page goes on by itself." : undefined}>
    <i class="dot" aria-hidden="true"></i>${words[state]}</span>`;
}

function NotFound() {
  useTitle("Not found");
  return html`<${Notice} title="There is no such page."><a href="/">All runs</a><//>`;
}
