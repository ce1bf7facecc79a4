//! The most memory that a gateway takes, from its settings: what an operator sizes a container by.
//!
//! What is bounded by a budget counts as that. What has a number of pieces counts as that many of the
//! largest that there can be; their sizes were measured and rounded up (docs/security.md has both).

use std::fmt;

use dkvs_client::{DECIDED_PER_PLACE, SHARES};

use crate::embedded::EMBEDDED_SERVER_BYTES_MAX;
use crate::http::batch_bytes_held;
use crate::http::serve::LONG_HEADS_BYTES_MAX;

/// Bytes of values, bodies, lists and replies on their way, per worker, unless values are very long.
const VALUE_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;

/// The program itself, its tables, the log's queue, and what watches the workers.
const PROGRAM_BYTES: usize = 24 << 20;

/// A worker without any connection.
const WORKER_BYTES: usize = 4 << 20;

/// A worker's link to a server: what is on its way there, and what has arrived.
const LINK_BYTES: usize = 1 << 20;

/// A connection without a request under way, with the largest buffer that it keeps, a reply that is not
/// counted and not taken, and what the system has for it.
const CONNECTION_BYTES: usize = 64 << 10;

/// What TLS takes of a connection besides.
const TLS_BYTES: usize = 80 << 10;

/// A request in flight, with what it holds without its being counted.
const REQUEST_BYTES: usize = 96 << 10;

/// What the allocator keeps in gaps: one of so many bytes.
const GAPS: usize = 8;

/// How many bytes of values, bodies, lists and replies may be on their way, per worker. It is more where
/// a caller's share of it would be too little for the longest batch.
pub(crate) fn value_bytes_in_flight_max(value_bytes_max: usize) -> usize {
    VALUE_BYTES_IN_FLIGHT_MAX.max(SHARES * batch_bytes_held(value_bytes_max))
}

/// What decides how much memory a gateway takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryDemand {
    pub(crate) workers: usize,
    /// Per worker.
    pub(crate) connections_max: usize,
    /// Per worker.
    pub(crate) requests_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) is_tls: bool,
    /// The servers of the cluster, inside the gateway or not.
    pub(crate) servers: usize,
    /// How many of them are inside the gateway.
    pub(crate) embedded: usize,
}

impl MemoryDemand {
    /// What it takes at most, by what for. In bytes.
    fn parts(self) -> Vec<(&'static str, usize)> {
        let workers = self.workers;
        let connection = match self.is_tls {
            true => CONNECTION_BYTES + TLS_BYTES,
            false => CONNECTION_BYTES,
        };
        let values = value_bytes_in_flight_max(self.value_bytes_max);
        let mut parts = vec![
            ("the program", PROGRAM_BYTES),
            ("workers", workers * WORKER_BYTES),
            (
                "links to servers",
                (workers + 1) * self.servers * LINK_BYTES,
            ),
            ("connections", workers * self.connections_max * connection),
            ("long heads of requests", workers * LONG_HEADS_BYTES_MAX),
            (
                "requests in flight",
                workers * self.requests_max * (1 + DECIDED_PER_PLACE) * REQUEST_BYTES,
            ),
            ("values on their way", workers * values),
        ];
        if self.embedded > 0 {
            let servers = self.embedded * EMBEDDED_SERVER_BYTES_MAX;
            parts.push(("servers inside the gateway", servers));
        }
        let sum: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        parts.push(("gaps between them", sum / GAPS));
        parts
    }

    /// What it takes at most, in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl fmt::Display for MemoryDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: usize| bytes.div_ceil(1 << 20);
        write!(f, "memory at most {} MiB:", mebibytes(self.bytes()))?;
        for (name, bytes) in self.parts() {
            write!(f, "\n    {:>6} MiB  {name}", mebibytes(bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/security.md");

    const DEMAND: MemoryDemand = MemoryDemand {
        workers: 2,
        connections_max: 1_280,
        requests_max: 256,
        value_bytes_max: 1 << 20,
        is_tls: false,
        servers: 5,
        embedded: 0,
    };

    #[test]
    fn the_document_has_the_sizes_of_all_pieces() {
        for (piece, bytes, unit) in [
            ("the program", PROGRAM_BYTES, 20),
            ("a worker", WORKER_BYTES, 20),
            ("a link", LINK_BYTES, 20),
            ("a connection", CONNECTION_BYTES, 10),
            ("TLS", TLS_BYTES, 10),
            ("long heads", LONG_HEADS_BYTES_MAX, 20),
            ("a request in flight", REQUEST_BYTES, 10),
            (
                "values, bodies, lists and replies",
                VALUE_BYTES_IN_FLIGHT_MAX,
                20,
            ),
            ("an embedded server", EMBEDDED_SERVER_BYTES_MAX, 20),
        ] {
            let unit_name = if unit == 20 { "MiB" } else { "KiB" };
            let cell = format!("| {} {unit_name} |", bytes >> unit);
            let mut rows = DOCUMENT.lines().filter(|row| row.starts_with("| "));
            assert!(
                rows.any(|row| row.contains(piece) && row.contains(&cell)),
                "{piece}: {cell}"
            );
        }
        let sum = format!("`{} MiB`", DEMAND.bytes().div_ceil(1 << 20));
        assert!(DOCUMENT.contains(&sum), "the example comes to {sum}");
    }

    #[test]
    fn more_of_anything_takes_more() {
        let more = [
            MemoryDemand {
                workers: 3,
                ..DEMAND
            },
            MemoryDemand {
                connections_max: 1_281,
                ..DEMAND
            },
            MemoryDemand {
                requests_max: 257,
                ..DEMAND
            },
            MemoryDemand {
                value_bytes_max: 16 << 20 << 3,
                ..DEMAND
            },
            MemoryDemand {
                is_tls: true,
                ..DEMAND
            },
            MemoryDemand {
                servers: 6,
                ..DEMAND
            },
            MemoryDemand {
                embedded: 1,
                ..DEMAND
            },
        ];
        for demand in more {
            assert!(demand.bytes() > DEMAND.bytes(), "{demand:?}");
        }
    }

    #[test]
    fn the_text_has_the_sum_and_its_parts() {
        let text = DEMAND.to_string();
        let sum = DEMAND.bytes().div_ceil(1 << 20);
        assert!(
            text.starts_with(&format!("memory at most {sum} MiB:\n")),
            "{text}"
        );
        assert!(
            text.contains("\n       512 MiB  values on their way\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1 + DEMAND.parts().len());
    }
}
