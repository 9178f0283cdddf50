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

/** By rank, the group that it is in; only groups that have stacks. */
export function placesOf(groups) {
  const places = new Map();
  for (const group of groups) if (group.answered) for (const rank of group.ranks) places.set(rank, group);
  return places;
}
