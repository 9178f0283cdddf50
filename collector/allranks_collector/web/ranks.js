// Ranks and sets of ranks. Pure functions.

/** States of a rank from worst to best: what is shown, in words. The order is that of legends and tables. */
export const RANK_STATES = ["failed", "dead", "stalled", "unreachable", "expected", "running", "finished"];
const NOT_FINE = new Set(["failed", "dead", "stalled", "unreachable"]);

/** "0-3,7" as [0, 1, 2, 3, 7]; anything else in the text is passed over. */
export function parseRanks(text) {
  const ranks = new Set();
  for (const part of (text ?? "").split(",")) {
    const match = /^\s*(\d{1,7})(?:-(\d{1,7}))?\s*$/.exec(part);
    if (!match) continue;
    const first = Number(match[1]);
    const last = Math.min(Number(match[2] ?? first), first + 65_535);
    for (let rank = first; rank <= last; rank += 1) ranks.add(rank);
  }
  return [...ranks].sort((a, b) => a - b);
}

/** Whether a text is a set of ranks and nothing else; the empty one is. */
export const isRankList = (text) => /^\s*(\d{1,7}(\s*-\s*\d{1,7})?\s*(,\s*|$))*$/.test(text);

/** [0, 1, 2, 3, 7] as "0-3,7". */
export function formatRanks(ranks) {
  const parts = [];
  const sorted = [...ranks].sort((a, b) => a - b);
  for (let i = 0; i < sorted.length; i += 1) {
    const first = sorted[i];
    while (sorted[i + 1] === sorted[i] + 1) i += 1;
    parts.push(first === sorted[i] ? `${first}` : `${first}-${sorted[i]}`);
  }
  return parts.join(",");
}

/** At most `limit` of the ranks, evenly spread, with the first and the last among them. */
export function sample(ranks, limit) {
  if (ranks.length <= limit) return ranks;
  return Array.from({ length: limit }, (_, i) => ranks[Math.round((i * (ranks.length - 1)) / (limit - 1))]);
}

/** How many ranks are in each state, worst first, states without ranks left out. */
export function stateCounts(ranks) {
  return RANK_STATES
    .map((state) => ({ state, ranks: ranks.filter((rank) => rank.state === state).map((rank) => rank.rank) }))
    .filter((entry) => entry.ranks.length > 0);
}

/** Ranks that need a look, so that a cause stands before its victims: the one that is named as the first failure
 * (`cause`), if any is, then the earliest end, then by rank. */
export function notFine(ranks, cause = null) {
  const ended = (rank) => (rank.state === "failed" || rank.state === "dead" ? rank.ended_at ?? rank.last_seen ?? 0 : Infinity);
  return ranks.filter((rank) => NOT_FINE.has(rank.state)).sort((a, b) => {
    if (a.rank === cause || b.rank === cause) return a.rank === cause ? -1 : 1;
    const [first, second] = [ended(a), ended(b)];
    // Who said why it failed explains those that went at the same moment.
    return first === second ? RANK_STATES.indexOf(a.state) - RANK_STATES.indexOf(b.state) || a.rank - b.rank : first - second;
  });
}

/** Ranks that are not fine, those with one fate together: [{ranks: [RANK, …], reason}], in the order of `notFine`.
 *
 * The first to end stays alone, as it may be the cause of the others. Figures in a reason ("no step for 12 s") do not
 * keep ranks apart.
 */
export function fates(bad) {
  const groups = new Map();
  bad.forEach((rank, i) => {
    const reason = reasonOf(rank);
    const first = i === 0 && (rank.state === "dead" || rank.state === "failed");
    const fate = first ? "first" : `${rank.state} ${reason.replace(/\d[\d.,]*/g, "#")}`;
    if (!groups.has(fate)) groups.set(fate, { first: first && bad.length > 1, reason, ranks: [] });
    groups.get(fate).ranks.push(rank);
  });
  return [...groups.values()];
}

/** Why a rank is as it is, in one line: its signal, exit code, exception and reason, none of them twice. */
export function reasonOf(rank) {
  const exception = rank.exception && typeof rank.exception === "object"
    ? [rank.exception.type, rank.exception.message].filter(Boolean).join(": ") : rank.exception;
  const exit = rank.signal ?? (rank.exit_code && !exception ? `exit code ${rank.exit_code}` : null);
  const reason = exception && rank.reason === "exception" ? null : rank.reason;
  const parts = [exit, exception, reason].filter(Boolean);
  return parts.filter((part, i) => !parts.some((other, k) => other.includes(part) && (other !== part || k < i))).join(" · ");
}

/** Whether most ranks that live stand still: then they have been asked where. */
export function mostStand(ranks) {
  const living = ranks.filter((rank) => ["running", "stalled", "unreachable"].includes(rank.state));
  return 2 * living.filter((rank) => rank.state !== "running").length > living.length;
}

/** The ranks, or as many ranges of them as are read at a glance: "0-3, 7, …". */
export function fewRanks(ranks, most = 4) {
  const parts = formatRanks(ranks).split(",");
  return parts.length <= most ? parts.join(", ") : `${parts.slice(0, most).join(", ")}, …`;
}

/** The slowest and the fastest step among ranks that live, or null where fewer than two have a step. */
export function stepSpread(ranks) {
  const live = ranks.filter((rank) => rank.last_step !== null && (rank.state === "running" || rank.state === "stalled"));
  if (live.length < 2) return null;
  const slowest = live.reduce((a, b) => (b.last_step < a.last_step ? b : a));
  const fastest = live.reduce((a, b) => (b.last_step > a.last_step ? b : a));
  return { slowest, fastest, behind: fastest.last_step - slowest.last_step };
}
