// Numbers and verdicts in words. Pure functions; asks nobody, draws nothing.

/** Microseconds as people say them. */
export function duration(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${digits(us / 1000)} ms`;
  return `${digits(us / 1e6)} s`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  if (count < 1024) return `${count} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do {
    count /= 1024;
    unit += 1;
  } while (count >= 1024 && unit < units.length - 1);
  return `${digits(count)} ${units[unit]}`;
}

/** Three digits or so. */
export function digits(number) {
  if (number >= 100 || Number.isInteger(number)) return Math.round(number).toLocaleString("en");
  return number.toFixed(number >= 10 ? 1 : 2);
}

export const count = (number) => (number ?? null) === null ? "–" : number.toLocaleString("en");

export const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`;

/** `1 server`, `2 servers`. */
export const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

const VERDICTS = {
  stored: ["ok", "holds the write, or something newer"],
  superseded: ["warn", "holds a newer version"],
  match: ["ok", "holds what was returned"],
  repaired: ["ok", "was behind, and was given the newest version"],
  stale: ["warn", "holds an older version"],
  differs: ["warn", "holds another value"],
  absent: ["idle", "holds nothing for this key"],
  tombstone: ["idle", "holds a tombstone: the key was deleted"],
  value: ["ok", "holds a value"],
  pending: ["idle", "had not answered yet"],
  refused: ["bad", "refused"],
  timeout: ["bad", "was silent until the deadline"],
  unreachable: ["bad", "nobody is there"],
};

/** What a replica's status means: its tone (ok, warn, bad, idle) and a phrase. */
export function verdict(replica) {
  const [tone, meaning] = VERDICTS[replica.status] ?? ["idle", replica.status];
  if (replica.behind) return { tone: "warn", meaning: `${meaning}, and lacks the newest version` };
  return { tone, meaning: replica.reason ?? meaning };
}
