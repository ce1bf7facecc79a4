//! Limits on the memory of a process that the system holds it to, where it lets the tests set any.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A group of processes that is killed if it takes more memory. To be declared before the processes in
/// it, so that they end first.
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// None where the system does not let the tests set one.
    pub fn new(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dkvs-test-{}-{number}", std::process::id());
        let roots = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        roots.into_iter().find_map(|(root, limit)| {
            let group = Path::new(root).join(&name);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            // The file is there where memory is limited at all.
            let is_set = group.0.join(limit).is_file()
                && fs::write(group.0.join(limit), bytes.to_string()).is_ok();
            is_set.then_some(group)
        })
    }

    /// The command that runs another one within the limit.
    pub fn around(&self, command: &Command) -> Command {
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        limited.arg(self.0.join("cgroup.procs"));
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // It works once the processes have ended.
        let _ = fs::remove_dir(&self.0);
    }
}
