// What a rank printed, as runs of characters that look the same. Pure functions: text goes in, text and looks come out.

const SGR = /\x1b\[([\d;:]*)m/g;
// What would not be seen, or would turn the reading of what stands around it: written out, so that it is neither.
const UNSEEN = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const CUBE = [0, 95, 135, 175, 215, 255];
// The sixteen colours as backgrounds, the same in both themes; as letters they are the style sheet's.
const SIXTEEN = [
  [0, 0, 0], [190, 45, 45], [30, 130, 65], [165, 115, 0], [40, 90, 210], [150, 50, 150], [0, 130, 140], [200, 205, 210],
  [90, 98, 108], [240, 95, 90], [60, 190, 110], [230, 180, 50], [110, 150, 255], [210, 110, 220], [50, 190, 200], [255, 255, 255],
];
const FLAGS = {
  1: ["bold", true], 2: ["dim", true], 3: ["italic", true], 4: ["underline", true], 7: ["inverse", true], 9: ["strike", true],
  21: ["underline", true], 23: ["italic", false], 24: ["underline", false], 27: ["inverse", false], 29: ["strike", false],
};
const NAMES = ["bold", "dim", "italic", "underline", "strike"];
const PLAIN = { fg: null, bg: null };

/** The text without colours. */
export const plain = (text) => text.replace(SGR, "");

/** Characters that show nothing, or move others about, in signs that stand still: ^[ for ESC, ‹U+202E› for an override. */
export const visible = (text) => text.replace(UNSEEN, (character) => {
  const code = character.charCodeAt(0);
  if (code < 0x20 || code === 0x7f) return `^${String.fromCharCode(code ^ 0x40)}`;
  return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
});

/** A line as runs `{text, classes, color, background}`, colours as CSS values or null.
 *
 * A colour of the sixteen alone is a class, `fg-0` … `fg-15`, as each theme has its own; any other alone has the class
 * `fg-own`, whose lightness the theme bounds. On a background of its own a letter keeps the colour that it was given.
 */
export function runs(text) {
  const found = [];
  let look = PLAIN;
  let from = 0;
  const add = (until) => {
    if (until > from) found.push({ text: text.slice(from, until), ...dress(look) });
  };
  for (const match of text.matchAll(SGR)) {
    add(match.index);
    look = applied(look, match[1]);
    from = match.index + match[0].length;
  }
  add(text.length);
  return found;
}

function applied(look, parameters) {
  const next = { ...look };
  // Parts of one colour are set apart by colons, or stand in a row: 38:2::1:2:3 is 38;2;1;2;3.
  const codes = parameters.split(";").flatMap(onePart);
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) {
      for (const name of Object.keys(next)) delete next[name];
      Object.assign(next, PLAIN);
    } else if (code === 22) next.bold = next.dim = false;
    else if (code in FLAGS) next[FLAGS[code][0]] = FLAGS[code][1];
    else if (code >= 30 && code <= 37) next.fg = code - 30;
    else if (code >= 90 && code <= 97) next.fg = code - 82;
    else if (code >= 40 && code <= 47) next.bg = code - 40;
    else if (code >= 100 && code <= 107) next.bg = code - 92;
    else if (code === 39) next.fg = null;
    else if (code === 49) next.bg = null;
    else if (code === 38 || code === 48) {
      const { color, used } = colorAt(codes, i + 1);
      if (color !== null) next[code === 38 ? "fg" : "bg"] = color;
      i += used;
    }
  }
  return next;
}

function onePart(part) {
  const [first, ...rest] = part.split(":");
  if (rest.length === 0) return [Number(first)];
  if (first === "4") return [rest[0] === "0" ? 24 : 4];
  // A colour space may stand before red.
  const parts = rest[0] === "2" && rest.length > 4 ? [rest[0], ...rest.slice(2)] : rest;
  return [first, ...parts].map(Number);
}

function colorAt(codes, i) {
  const isByte = (value) => value >= 0 && value <= 255;
  if (codes[i] === 5) return { color: isByte(codes[i + 1]) ? codes[i + 1] : null, used: 2 };
  const color = codes.slice(i + 1, i + 4);
  if (codes[i] === 2) return { color: color.length === 3 && color.every(isByte) ? color : null, used: 4 };
  return { color: null, used: 0 };
}

function dress(look) {
  const [fg, bg] = look.inverse ? [look.bg, look.fg] : [look.fg, look.bg];
  const classes = NAMES.filter((name) => look[name]);
  if (look.inverse && fg === null && bg === null) classes.push("inverse");
  if (bg !== null) {
    const behind = rgb(bg);
    const letters = fg === null ? (isLight(behind) ? [17, 17, 17] : [255, 255, 255]) : rgb(fg);
    return { classes: classes.join(" "), color: css(letters), background: css(behind) };
  }
  if (fg === null) return { classes: classes.join(" "), color: null, background: null };
  const ofTheme = typeof fg === "number" && fg < 16;
  classes.push(ofTheme ? `fg-${fg}` : "fg-own");
  return { classes: classes.join(" "), color: ofTheme ? null : css(rgb(fg)), background: null };
}

function rgb(color) {
  if (Array.isArray(color)) return color;
  if (color < 16) return SIXTEEN[color];
  if (color >= 232) return Array(3).fill(8 + 10 * (color - 232));
  const place = color - 16;
  return [Math.floor(place / 36), Math.floor(place / 6) % 6, place % 6].map((level) => CUBE[level]);
}

const isLight = ([red, green, blue]) => 0.299 * red + 0.587 * green + 0.114 * blue > 140;
const css = (color) => `rgb(${color.join(" ")})`;

/** A search as the page's own regular expression, to show where lines match; null where it cannot be one, or may take too long.
 *
 * The collector searches, by RE2, which takes time in proportion to the text alone. A browser's expressions may take for
 * ever where a group is repeated: such matches are found all the same, only not marked within their line.
 */
export function marker(search) {
  if (!search) return null;
  const [, flags, rest] = /^(?:\(\?([ims]+)\))?(.*)$/s.exec(search);
  const bare = rest.replace(/\\./g, "").replace(/\[[^\]]*\]/g, "");
  if (/\)[*+{]/.test(bare) || (bare.match(/[*+{]/g) ?? []).length > 2) return null;
  try {
    return new RegExp(rest, `g${[...new Set(flags ?? "")].join("")}`);
  } catch {
    return null;
  }
}

/** Where a text matches, as [from, until] in order; the first `limit` places that are not empty. */
export function places(text, expression, limit = 100) {
  const found = [];
  for (const match of text.matchAll(expression)) {
    if (match[0]) found.push([match.index, match.index + match[0].length]);
    if (found.length >= limit) break;
  }
  return found;
}

/** The runs, cut where a marked place begins or ends, with `marked` on those within one. */
export function withMarks(list, marks) {
  const cut = [];
  let at = 0;
  for (const run of list) {
    const end = at + run.text.length;
    const edges = marks.flat().filter((edge) => edge > at && edge < end);
    const cuts = [at, ...edges, end];
    for (let i = 0; i + 1 < cuts.length; i += 1) {
      const [from, until] = [cuts[i], cuts[i + 1]];
      if (until > from) {
        const marked = marks.some(([low, high]) => low <= from && until <= high);
        cut.push({ ...run, text: run.text.slice(from - at, until - at), marked });
      }
    }
    at = end;
  }
  return cut;
}

/** The first `limit` characters of the runs. */
export function head(list, limit) {
  const kept = [];
  let room = limit;
  for (const run of list) {
    if (room <= 0) break;
    kept.push(run.text.length <= room ? run : { ...run, text: run.text.slice(0, room) });
    room -= run.text.length;
  }
  return kept;
}
