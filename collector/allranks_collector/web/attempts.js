// A run's attempts as lineage, and where its time went. Pure functions.

/** The parts of a run's time, best first: [field of `goodput`, what it is called, what it is]. */
const PARTS = [
  ["productive_s", "productive", "steps that no attempt had reached before"],
  ["init_s", "init", "from each attempt's start to its first step"],
  ["stalled_s", "stalled", "without a step, until it went on"],
  ["detection_s", "lost to detection", "from the last step of an attempt that ended badly to its end"],
  ["restart_s", "restart", "from the end of an attempt to the start of the next"],
  ["recomputation_s", "recomputation", "steps that had been reached before"],
];

/** The parts that took time: [{name, label, title, seconds, share}]; shares are of the whole. */
export function partsOf(goodput) {
  const whole = PARTS.reduce((sum, [field]) => sum + (goodput[field] ?? 0), 0);
  return PARTS.map(([field, label, title]) => ({ name: field.slice(0, -2), label, title, seconds: goodput[field] ?? 0 }))
    .filter(({ seconds }) => seconds > 0).map((part) => ({ ...part, share: part.seconds / whole }));
}

/** Where each attempt lies among the steps of all, as shares of 1: {from, until, again}; null where it made none.
 *
 * `again`: up to where it did steps that an earlier one had done.
 */
export function lineage(attempts) {
  const made = attempts.filter((one) => one.first_step !== null);
  const low = Math.min(...made.map((one) => one.first_step));
  const whole = Math.max(1, Math.max(...made.map((one) => one.last_step)) - low);
  let reached = -Infinity;
  return attempts.map((one) => {
    if (one.first_step === null) return null;
    const share = (step) => (step - low) / whole;
    const again = Math.min(reached, one.last_step);
    reached = Math.max(reached, one.last_step);
    return { from: share(one.first_step), until: share(one.last_step), again: again > one.first_step ? share(again) : share(one.first_step) };
  });
}
