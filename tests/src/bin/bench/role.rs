//! One program, many parts: the bench starts itself again, and a variable says as what.
//!
//! Invariant: every process started here ends with the bench, however that ends. A value that holds
//! a process kills it when it goes; what outlives even that (the bench was killed) is ended by
//! the system, where it can be asked to (Linux).

use std::ffi::OsStr;
use std::io;
use std::process::{Command, ExitCode};

use crate::reference;

/// The variable that says which part a process plays. Its name must not look like one of the
/// gateway's settings, which refuses those that it does not know.
const VARIABLE: &str = "BENCH_ROLE";

/// What a process of the bench may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `dkvs-storage-node`, as a user gets it.
    StorageNode,
    /// `dkvs-gateway`, as a user gets it.
    Gateway,
    /// A handler of axum that does nothing, served as the gateway serves.
    BareHandler,
    /// Datagrams back to where they came from.
    UdpEcho,
    /// Another program: the first argument and those after it.
    Other,
}

impl Role {
    const ALL: [(Self, &'static str); 5] = [
        (Self::StorageNode, "storage-node"),
        (Self::Gateway, "gateway"),
        (Self::BareHandler, "bare-handler"),
        (Self::UdpEcho, "udp-echo"),
        (Self::Other, "other"),
    ];

    /// What this process is to be; none for the bench itself.
    pub fn of_this_process() -> Option<Self> {
        let said = std::env::var_os(VARIABLE)?;
        let role = Self::ALL.iter().find(|(_, name)| said == OsStr::new(name));
        role.map(|(role, _)| *role)
    }

    /// The command that starts a process of this role, with an environment that sets nothing for
    /// it. Arguments are the role's own.
    pub fn command(self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"DKVS_") {
                command.env_remove(name);
            }
        }
        let name = Self::ALL.iter().find(|(role, _)| *role == self);
        command.env(VARIABLE, name.map_or("", |(_, name)| name));
        Ok(command)
    }

    /// Plays the part to its end.
    pub fn run(self) -> ExitCode {
        end_with_parent();
        match self {
            Self::StorageNode => dkvs_storage_node::cli::main(),
            Self::Gateway => dkvs_gateway::cli::main(),
            Self::BareHandler => exit_code(reference::serve_bare_handler()),
            Self::UdpEcho => exit_code(reference::serve_udp_echo()),
            Self::Other => exit_code(become_another()),
        }
    }
}

fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the system to end this process when the bench ends.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let asked = set_parent_process_death_signal(Some(Signal::KILL));
        // A parent that was gone by then sends no signal any more.
        if asked.is_err() || getppid().is_none_or(|parent| parent.is_init()) {
            eprintln!("bench: this process may outlive the bench");
        }
    }
}

/// Replaces this process by the program that the arguments name.
#[cfg(unix)]
fn become_another() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().unwrap_or_default();
    let error = Command::new(&program)
        .args(arguments)
        .env_remove(VARIABLE)
        .exec();
    Err(anyhow::Error::new(error).context(format!("cannot become {}", program.display())))
}

#[cfg(not(unix))]
fn become_another() -> anyhow::Result<()> {
    anyhow::bail!("other programs are measured on Unix only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_recognized_by_the_environment_alone() {
        for (role, name) in Role::ALL {
            let command = role.command().unwrap();
            let said = command
                .get_envs()
                .find(|(variable, _)| *variable == VARIABLE);
            assert_eq!(said.unwrap().1, Some(OsStr::new(name)));
            // The program sees its own arguments only, as from a shell.
            assert_eq!(command.get_args().count(), 0);
        }
        assert_eq!(Role::of_this_process(), None, "a test is no part");
    }
}
