// Light, dark, or as the system has it.
import { useEffect, useState } from "./lib.js";
import { RANK_STATES } from "./ranks.js";
import { usePreference } from "./store.js";

const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** The theme in force, "light" or "dark", and a function that switches to the other one. */
export function useTheme() {
  const [chosen, choose] = usePreference("theme", "auto");
  const [dark, setDark] = useState(systemDark.matches);
  useEffect(() => {
    const onChange = () => setDark(systemDark.matches);
    systemDark.addEventListener("change", onChange);
    return () => systemDark.removeEventListener("change", onChange);
  }, []);
  const theme = chosen === "auto" ? (dark ? "dark" : "light") : chosen;
  const toggle = () => {
    const next = theme === "dark" ? "light" : "dark";
    // Back to what the system says is back to following it.
    const follows = next === (systemDark.matches ? "dark" : "light");
    if (follows) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    choose(follows ? "auto" : next);
  };
  return { theme, toggle };
}

/** Colours for canvases, read from the style sheet so that they are written in one place. */
export function chartColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  return {
    text: color("--dim"), grid: color("--grid"), mean: color("--chart"), faint: color("--chart-faint"),
    band: color("--chart-band"), lightness: Number(color("--rank-lightness")),
  };
}

/** The colours of states, and of what is written beside them. */
export function stateColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const states = Object.fromEntries(RANK_STATES.map((state) => [state, color(`--${state}`)]));
  return { ...states, text: color("--dim"), strong: color("--text") };
}

/** A rank's own colour, the same in every chart: the golden angle keeps neighbours apart. */
export const rankColor = (rank, lightness) => `hsl(${Math.round((rank * 137.508 + 212) % 360)} 62% ${lightness}%)`;
