//! How many files the process may have open; sockets are such, too.

/// What a program has open beside what its own settings ask for: streams, signals, the log, files
/// of settings, connections for metrics.
pub const RESERVED: usize = 64;

/// What a worker has open beside its connections and its sockets towards servers: a socket to
/// listen on, and what its runtime waits with.
pub const PER_WORKER: usize = 8;

/// What a storage server has open for its data directory: 64 segments of the log, its other files, one
/// for each read that is under way, and those of a backup.
pub const PER_DATA_DIRECTORY: usize = 96;

/// What a storage server inside another process has open beside a socket towards each of the other
/// servers: its own socket, and the files of its data directory.
pub const PER_EMBEDDED_SERVER: usize = 8 + PER_DATA_DIRECTORY;

/// Raises the limit as far as the system lets the process, and returns what it is then.
#[cfg(unix)]
pub fn raise_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
    let files = getrlimit(Resource::Nofile).current;
    files.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX))
}

/// As on Unix, where there is no such limit.
#[cfg(not(unix))]
pub fn raise_limit() -> usize {
    usize::MAX
}

/// What a storage server of so many workers may have open at once, in a cluster of so many servers, of
/// which it asks each by a socket of its own.
pub fn wanted_by_server(workers: usize, servers: usize) -> usize {
    RESERVED + PER_DATA_DIRECTORY + workers * PER_WORKER + servers
}

/// The fewest files with which a storage server of so many workers starts. With a data directory it
/// refuses puts if no file is left for it.
pub fn needed_by_server(workers: usize) -> usize {
    RESERVED + workers * PER_WORKER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_a_server_wants() {
        let documents = include_str!("../../../docs/operations/deploy.md");
        let fixed = RESERVED + PER_DATA_DIRECTORY;
        let formula = format!("server:   {fixed} + workers × {PER_WORKER} + servers\n");
        assert!(documents.contains(&formula), "{formula}");
        assert_eq!(wanted_by_server(2, 5), fixed + 2 * PER_WORKER + 5);
        let least = format!("with fewer than {RESERVED} + workers × {PER_WORKER} a server");
        assert!(documents.contains(&least), "{least}");
        assert_eq!(needed_by_server(2), RESERVED + 2 * PER_WORKER);
    }
}
