// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);

/** So many a second. */
export const rate = (number) => (number < 100 ? tenths : whole).format(number);

/** A time in milliseconds; there may be none. */
export function took(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

/** `3h 12m`, `42s`: two units at most. */
export function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  let rest = Math.max(0, Math.floor(seconds));
  const words = [];
  const first = units.findIndex(([, size]) => size <= rest);
  for (const [unit, size] of units.slice(first < 0 ? 3 : first).slice(0, 2)) {
    const times = Math.floor(rest / size);
    rest %= size;
    if (0 < times || words.length === 0) words.push(`${times}${unit}`);
  }
  return words.join(" ");
}

/** How long ago a time was, by the clock of the process. */
export const ago = (at, now) => `${span((now - Date.parse(at)) / 1000)} ago`;

/** A time of the process, as the clock here shows it. */
export const clock = (ms) => new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** The same, of a time that is not long ago: the time of the day, to the millisecond. */
export const moment = (ms) => new Date(ms).toLocaleTimeString("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});

/** `1 backend`, `2 backends`. */
export const some = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
