// What happened between two snapshots: rates and percentiles of the last two minutes. Pure data;
// draws nothing. Counters that go back belong to a gateway that was started anew.

export const SECONDS = 120;
const METHODS = ["GET", "PUT", "DELETE", "other"];

export class History {
  #last = null;
  /** One sample a second, the newest last. Null where nothing is known. */
  samples = [];

  add(snapshot) {
    const last = this.#last;
    this.#last = snapshot;
    if (!last) return;
    if (last.started_ms !== snapshot.started_ms) {
      this.#push({ at_ms: snapshot.at_ms });
      return;
    }
    const seconds = (snapshot.at_ms - last.at_ms) / 1000;
    // A stream that was cut goes on with a snapshot at once, maybe of the same moment.
    if (seconds < 0.2) {
      this.#last = last;
      return;
    }
    // The chart has a place per second: where the stream was cut, it stays empty.
    for (let missed = Math.min(SECONDS, Math.round(seconds) - 1); missed > 0; missed -= 1) this.#push({});
    const sample = { at_ms: snapshot.at_ms };
    const rate = (now, then) => Math.max(0, now - then) / seconds;
    for (const method of METHODS) {
      sample[method] = rate(snapshot.totals.requests[method], last.totals.requests[method]);
    }
    sample.failures = rate(snapshot.totals.quorum_failures, last.totals.quorum_failures);
    sample.repairs = rate(snapshot.totals.repairs, last.totals.repairs);
    sample.p50 = percentile(0.5, snapshot.latency, last.latency);
    sample.p99 = percentile(0.99, snapshot.latency, last.latency);
    this.#push(sample);
  }

  #push(sample) {
    this.samples.push(sample);
    if (this.samples.length > SECONDS) this.samples.shift();
  }
}

/**
 * The latency in microseconds that this share of the requests between two histograms did not
 * exceed; null if there was none. Within a bucket they are taken to be spread evenly.
 */
export function percentile(share, now, then) {
  const total = now.count - then.count;
  if (!(total > 0)) return null;
  const rank = share * total;
  let below = 0;
  let from = 0;
  for (const [at, bucket] of now.buckets.entries()) {
    const upTo = bucket.count - (then.buckets[at]?.count ?? 0);
    const edge = bucket.le_us;
    // The last bucket has no upper edge: no more is known than that it was longer than the one before.
    if (!Number.isFinite(edge)) return from;
    if (upTo >= rank) {
      return upTo === below ? edge : from + ((edge - from) * (rank - below)) / (upTo - below);
    }
    below = upTo;
    from = edge;
  }
  return from;
}
