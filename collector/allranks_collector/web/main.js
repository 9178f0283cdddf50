import { html, render } from "./lib.js";
import { App } from "./components/app.js";

render(html`<${App} />`, document.getElementById("app"));
