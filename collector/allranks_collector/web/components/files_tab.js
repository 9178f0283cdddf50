// The run's files in their folders, for download, and those that are arriving.
import { html, useEffect, useMemo, useState } from "../lib.js";
import { fileUrl } from "../api.js";
import { fileRows, share } from "../files.js";
import { bytes, count, plural } from "../format.js";
import { Ago, Filter, Notice } from "./bits.js";

const SHOWN = 1_000;
// Notes come while bytes do: a file that stands still, or is given up, is found out by asking.
const ASK_MS = 3_000;

export function FilesTab({ run, list, error, refresh }) {
  const [words, setWords] = useState("");
  const [closed, setClosed] = useState(new Set());
  const arriving = list?.arriving ?? [];
  useEffect(() => {
    if (arriving.length === 0) return undefined;
    const timer = setInterval(refresh, ASK_MS);
    return () => clearInterval(timer);
  }, [arriving.length > 0]);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const files = useMemo(
    () => (list?.files ?? []).filter((file) => wanted.every((word) => `${file.name} ${file.host} rank ${file.rank}`.toLowerCase().includes(word))),
    [list, words],
  );
  const rows = useMemo(() => fileRows(files, closed), [files, closed]);
  const toggle = (path) => setClosed((old) => {
    const next = new Set(old);
    if (!next.delete(path)) next.add(path);
    return next;
  });
  if (!list) return error ? html`<${Notice} kind="error" title=${error.message} />` : html`<p class="dim" role="status">Loading…</p>`;
  return html`<section aria-label="Files">
    ${arriving.length > 0 && html`<${Arriving} files=${arriving} />`}
    <div class="toolbar"><${Filter} label="Filter by name, host, rank…" value=${words} onChange=${setWords} testid="files-filter" />
      <span class="dim" role="status">${plural(files.length, "file")}, ${bytes(files.reduce((sum, file) => sum + file.size, 0))}
        ${rows.length > SHOWN ? `; the first ${count(SHOWN)} rows are shown` : ""}</span></div>
    ${rows.length === 0 && html`<${Notice} title=${words ? "No file matches." : "No files yet."}>
      ${!words && html`What a training writes into <code>run.dir</code> comes here, and what it names with <code>run.save</code>.`}<//>`}
    ${rows.length > 0 && html`<div class="panel scroll"><table class="files" data-testid="files">
      <thead><tr><th scope="col">Name</th><th scope="col" class="figure">Size</th><th scope="col">Host</th>
        <th scope="col" class="figure">Rank</th><th scope="col" class="figure">Modified</th><th scope="col">SHA-256</th></tr></thead>
      <tbody>${rows.slice(0, SHOWN).map((row) => (row.folder
        ? html`<${Folder} key=${row.path} row=${row} onToggle=${toggle} />` : html`<${File} key=${row.path} row=${row} run=${run} />`))}</tbody>
    </table></div>`}
  </section>`;
}

function Folder({ row, onToggle }) {
  const { label, depth, path, folder } = row;
  return html`<tr data-testid="folder-row" data-path=${path}>
    <td class="name" style=${{ "--depth": depth }}><button type="button" class="link" aria-expanded=${String(folder.open)} onClick=${() => onToggle(path)}>
      <span class="arrow" aria-hidden="true">${folder.open ? "▾" : "▸"}</span>${label}/</button> <small>${count(folder.count)}</small></td>
    <td class="figure dim">${bytes(folder.bytes)}</td><td colspan="4"></td></tr>`;
}

function File({ row, run }) {
  const { label, depth, file } = row;
  return html`<tr data-testid="file-row" data-name=${file.name} data-host=${file.host}>
    <td class="name" style=${{ "--depth": depth }}><a href=${fileUrl(run, file)} download=${label} title=${`Download ${file.name}`}>${label}</a>
      ${file.versions > 1 && html`<small title="contents of it that are kept; the newest is shown">${plural(file.versions, "version")}</small>`}</td>
    <td class="figure" title=${`${count(file.size)} bytes`}>${bytes(file.size)}</td>
    <td class="dim"><code>${file.host}</code></td><td class="figure">${file.rank ?? ""}</td>
    <td class="figure"><${Ago} time=${file.modified} /></td><td class="dim"><code title=${file.digest}>${file.digest.slice(0, 12)}</code></td></tr>`;
}

function Arriving({ files }) {
  return html`<div class="panel arriving" data-testid="arriving"><h2>Arriving<small>${count(files.length)}</small></h2>
    ${files.slice(0, SHOWN).map((file, i) => html`<div class="arrival" key=${`${file.name}\n${file.host}\n${i}`} data-testid="arrival" data-name=${file.name}>
      <span class="which">${file.name} <small>${file.host}</small></span>
      <progress max="1" value=${share(file)} aria-label=${`${file.name}: ${Math.floor(100 * share(file))} % is here`}></progress>
      <span class="figure">${bytes(file.offset)} of ${bytes(file.size)}</span></div>`)}
  </div>`;
}
