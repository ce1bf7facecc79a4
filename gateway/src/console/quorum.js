// The rules of n, w, r and `consistency`, and what they promise in words: those of
// common/src/quorum/params.rs and level.rs, so that the page can tell before it asks. The gateway
// decides; this asks nobody and draws nothing.

import { plural } from "./format.js";

export const majority = (n) => Math.floor(n / 2) + 1;

/** What a request means that gives n and w (or r), or leaves them out (null). */
export function resolve(n, needed, { replication, servers }) {
  const asked = n ?? Math.max(replication, needed ?? 0);
  const quorum = { n: asked, needed: needed ?? majority(asked), problem: null };
  if (servers && asked > servers) {
    quorum.problem = `n is ${asked}, and the cluster has ${plural(servers, "server")}.`;
  } else if (quorum.needed > asked) {
    quorum.problem = `${quorum.needed} of ${asked} replicas cannot answer: choose no more than n.`;
  }
  return quorum;
}

/** The level of a quorum: `{ level, problem, why }`. */
export function level({ n, needed }, consistency, replication) {
  const obstacle =
    n !== replication
      ? `n is not ${replication}, the replication of this cluster, so other requests may ask other replicas`
      : needed < majority(n)
        ? `${needed} of ${n} is no majority, so two such quorums need not meet`
        : null;
  if (consistency === "linearizable" && obstacle) {
    return { level: null, problem: `The gateway will refuse this: it cannot be linearizable, since ${obstacle}.` };
  }
  if (consistency === "agreement") return { level: "agreement", why: "as you ask" };
  return obstacle ? { level: "agreement", why: obstacle } : { level: "linearizable" };
}

/** What a write or a read of this quorum promises: a few sentences. */
export function promise(kind, quorum, consistency, replication) {
  if (quorum.problem) return { level: null, problem: quorum.problem, lines: [] };
  const found = level(quorum, consistency, replication);
  if (found.problem) return { ...found, lines: [] };
  const { n, needed } = quorum;
  const spare = n - needed;
  const verb = kind === "write" ? (needed === 1 ? "confirms" : "confirm") : needed === 1 ? "answers" : "agree";
  const lines = [`${needed} of ${n} ${verb}. ` + (spare === 0 ? "Every replica has to be there." : `Goes on with ${spare} away.`)];
  if (found.level === "linearizable") {
    lines.push(kind === "write" ? "Every later read sees it, or something newer." : "Never older than a confirmed write; never goes back.");
  } else if (kind === "write") {
    lines.push(`Promises ${plural(needed, "copy").replace("copys", "copies")}, and no order among writes.`);
  } else {
    lines.push(needed === 1 ? "Any replica’s value will do, old or new." : `Gives what ${needed} replicas hold alike; if none is such, a 409.`);
  }
  if (found.level === "agreement" && found.why && consistency !== "agreement") lines.push(`Not linearizable: ${found.why}.`);
  return { ...found, lines };
}

/** Whether reads meet writes, where that is not settled by the level. */
export function overlap(write, read, levels) {
  if (levels.every((level) => level === "linearizable")) {
    return "Write and read quorums are majorities of the same replicas, so any two of them share one.";
  }
  if (write.n !== read.n) return "Writes and reads ask different numbers of replicas here.";
  const { needed: w } = write;
  const { needed: r, n } = read;
  return w + r > n
    ? `w + r = ${w + r} is more than n = ${n}: a read asks at least one replica that confirmed the last write.`
    : `w + r = ${w + r} is no more than n = ${n}: a read may miss a write that was confirmed.`;
}
