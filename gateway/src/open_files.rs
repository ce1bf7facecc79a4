//! How many connections and sockets each worker may have open within the limit on open files.

use anyhow::ensure;
use dkvs_runtime::open_files::{PER_EMBEDDED_SERVER, PER_WORKER, RESERVED};

/// Most sockets towards servers of DKVS/1 per worker, where the system allows as many.
const V1_SOCKETS_MAX: usize = 4_096;

/// Most connections to the listener for health and metrics.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Sockets for DKVS/1 of the client that checks the servers, beside two for each server.
const WATCH_V1_SOCKETS: usize = 64;

/// Most sockets for DKVS/1 of the client that checks the servers.
pub(crate) fn watch_v1_sockets_max(servers: usize) -> usize {
    WATCH_V1_SOCKETS + 2 * servers
}

/// The fewest for connections and those sockets, per worker, that a gateway starts with.
const PER_WORKER_MIN: usize = 64;

/// What a gateway would have open if nothing limited it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenFilesDemand {
    pub(crate) workers: usize,
    /// The servers of the cluster, inside the gateway or not.
    pub(crate) servers: usize,
    /// How many of them are inside the gateway.
    pub(crate) embedded: usize,
    /// Connections per worker.
    pub(crate) connections_max: usize,
}

/// How much each worker may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFilesGrant {
    pub(crate) connections_max: usize,
    pub(crate) v1_sockets_max: usize,
}

impl OpenFilesDemand {
    /// The files that are open whatever callers do: above all a DKVS/2 socket per worker and server.
    fn fixed(self) -> usize {
        RESERVED
            + PER_WORKER
            + ADMIN_CONNECTIONS_MAX
            + self.servers
            + watch_v1_sockets_max(self.servers)
            + self.workers * (PER_WORKER + self.servers)
            + self.embedded * (PER_EMBEDDED_SERVER + self.servers)
    }

    /// The limit on open files that grants all of it.
    pub(crate) fn wanted(self) -> usize {
        let both = self.connections_max + V1_SOCKETS_MAX;
        self.fixed() + self.workers * both.max(2 * V1_SOCKETS_MAX)
    }

    /// What a process may have open whose limit is `files`. Sockets for DKVS/1 come before
    /// connections, up to half of what the limit leaves.
    ///
    /// # Errors
    ///
    /// If too little is left for each worker.
    pub(crate) fn grant(self, files: usize) -> anyhow::Result<OpenFilesGrant> {
        let per_worker = files.saturating_sub(self.fixed()) / self.workers;
        ensure!(
            per_worker >= PER_WORKER_MIN,
            "a process that may open {files} files is too small for {} workers and {} servers; it \
             takes {} at the least; raise the limit (ulimit -n) or lower --workers",
            self.workers,
            self.servers,
            self.fixed() + self.workers * PER_WORKER_MIN,
        );
        let v1_sockets_max = V1_SOCKETS_MAX.min(per_worker / 2);
        let granted = OpenFilesGrant {
            connections_max: self.connections_max.min(per_worker - v1_sockets_max),
            v1_sockets_max,
        };
        let OpenFilesGrant {
            connections_max,
            v1_sockets_max,
        } = granted;
        if connections_max < self.connections_max || v1_sockets_max < V1_SOCKETS_MAX {
            tracing::warn!(
                "the process may open {files} files only, and {} would be wanted: at most \
                 {connections_max} connections and {v1_sockets_max} sockets for DKVS/1 per worker",
                self.wanted()
            );
        }
        Ok(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = include_str!("../../docs/operations/deploy.md");

    fn demand(
        workers: usize,
        servers: usize,
        embedded: usize,
        connections_max: usize,
    ) -> OpenFilesDemand {
        OpenFilesDemand {
            workers,
            servers,
            embedded,
            connections_max,
        }
    }

    #[test]
    fn what_is_wanted_is_granted_and_with_one_file_less_it_is_not() {
        for demand in [
            demand(1, 3, 0, 4_096),
            demand(8, 3, 0, 4_096),
            demand(2, 5, 5, 100),
            demand(64, 255, 255, 10_000),
        ] {
            let all = OpenFilesGrant {
                connections_max: demand.connections_max,
                v1_sockets_max: V1_SOCKETS_MAX,
            };
            assert_eq!(demand.grant(demand.wanted()).unwrap(), all, "{demand:?}");
            assert_ne!(
                demand.grant(demand.wanted() - 1).unwrap(),
                all,
                "{demand:?}"
            );
        }
    }

    #[test]
    fn all_that_is_granted_together_is_never_more_than_may_be_open() {
        let demand = demand(3, 5, 5, 4_096);
        let least = demand.fixed() + 3 * PER_WORKER_MIN;
        for files in least..least + 20_000 {
            let OpenFilesGrant {
                connections_max,
                v1_sockets_max,
            } = demand.grant(files).unwrap();
            assert!(demand.fixed() + 3 * (connections_max + v1_sockets_max) <= files);
        }
        let refusal = demand.grant(least - 1).unwrap_err().to_string();
        assert!(
            refusal.contains(&format!("it takes {least} at the least")),
            "{refusal}"
        );
        assert!(demand.grant(0).is_err());
        assert!(demand.grant(usize::MAX).is_ok());
    }

    #[test]
    fn the_documents_say_what_a_gateway_wants() {
        let formula = format!(
            "gateway:  {} + 3 × servers\n          and for each worker {PER_WORKER} + servers + the \
             greater of {} and max-connections + {V1_SOCKETS_MAX}\n          and \
             {PER_EMBEDDED_SERVER} + servers more for each embedded server\n",
            demand(0, 0, 0, 0).fixed(),
            2 * V1_SOCKETS_MAX
        );
        assert!(DOCUMENTS.contains(&formula), "{formula}");
        let mut examples = 0;
        for line in DOCUMENTS.lines() {
            // A row of the table of examples has four numbers and nothing else.
            let cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace(',', ""));
            let Ok(numbers) = cells
                .map(|cell| cell.parse())
                .collect::<Result<Vec<usize>, _>>()
            else {
                continue;
            };
            let [workers, servers, connections_max, files] = numbers[..] else {
                continue;
            };
            assert_eq!(
                demand(workers, servers, 0, connections_max).wanted(),
                files,
                "{line}"
            );
            examples += 1;
        }
        assert!(examples >= 3, "{examples} examples");
        let unit = include_str!("../../packaging/systemd/dkvs-gateway.service");
        let limit = unit
            .lines()
            .find_map(|line| line.strip_prefix("LimitNOFILE="));
        let limit: usize = limit.unwrap().parse().unwrap();
        assert!(demand(8, 100, 0, 4_096).wanted() <= limit, "eight workers");
    }
}
