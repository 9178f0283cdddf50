// Files as a tree of folders. Pure functions.

const natural = new Intl.Collator("en", { numeric: true }).compare;

/** The folders and files as rows from top to bottom, folders first in each folder.
 *
 * @param {Array<{name: string, host: string, size: number}>} files
 * @param {Set<string>} closed paths of folders whose content is not shown
 * @returns rows `{path, label, depth, folder: {count, bytes, open}}` or `{path, label, depth, file}`
 */
export function fileRows(files, closed = new Set()) {
  const root = { folders: new Map(), files: [], count: 0, bytes: 0 };
  for (const file of files) {
    let place = root;
    const parts = file.name.split("/");
    for (const part of parts.slice(0, -1)) {
      if (!place.folders.has(part)) place.folders.set(part, { folders: new Map(), files: [], count: 0, bytes: 0 });
      place = place.folders.get(part);
      place.count += 1;
      place.bytes += file.size;
    }
    place.files.push({ label: parts.at(-1), file });
  }
  return rowsOf(root, "", 0, closed);
}

function rowsOf(place, path, depth, closed) {
  const rows = [];
  for (const [label, inner] of [...place.folders].sort(([a], [b]) => natural(a, b))) {
    const own = `${path}${label}/`;
    const open = !closed.has(own);
    rows.push({ path: own, label, depth, folder: { count: inner.count, bytes: inner.bytes, open } });
    if (open) for (const row of rowsOf(inner, own, depth + 1, closed)) rows.push(row);
  }
  const sorted = [...place.files].sort((a, b) => natural(a.label, b.label) || natural(a.file.host, b.file.host));
  for (const { label, file } of sorted) rows.push({ path: `${file.name}\n${file.host}`, label, depth, file });
  return rows;
}

/** How much of a file is here, from 0 to 1; a file of nothing is here. */
export const share = ({ offset, size }) => (size > 0 ? Math.min(1, offset / size) : 1);
