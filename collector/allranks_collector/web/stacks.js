// Stacks of ranks. Pure functions.

/** Whether a frame `[file, line, function]` is the place that the group names. */
export function isPlace(frame, group) {
  const [file, line, name] = frame;
  return line === group.line && file.slice(file.lastIndexOf("/") + 1) === group.file
    && (name.slice(name.lastIndexOf(".") + 1) || name) === group.function;
}

/** A stack's threads as a text that can be kept. */
export function stackText(rank, threads) {
  return threads.map(({ name, main, frames }) => [
    `rank ${rank}, ${main ? "main thread" : `thread ${name}`}:`,
    ...frames.map(([file, line, called]) => `  ${file}:${line} in ${called}`),
  ].join("\n")).join("\n\n");
}

/** The group that a rank is in, or null. */
export const groupOf = (groups, rank) => groups.find((group) => group.ranks.includes(rank)) ?? null;
