//! A panic ends the process, whichever thread or task it is in, and one of the engine over damaged
//! files does not.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use dkvs_runtime::panics::STATUS;
use dkvs_tests::process::{DataDir, Programs, own_loopback};
use dkvs_tests::programs;
use rustix::process::Signal;

const PROGRAMS: Programs = programs!();

#[test]
fn a_panic_in_any_thread_or_task_is_logged_and_ends_the_process() {
    let directory = DataDir::new();
    for place in ["main", "thread", "worker", "task", "blocking", "commit"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_panics"));
        command.args([place, directory.path()]);
        let (status, _, said) = PROGRAMS.run_to_end(command);
        assert_eq!(status.code(), Some(STATUS), "{place}: {said}");
        let (logged, panicked) = (said.find("before"), said.find("panicked at"));
        assert!(logged.is_some() && logged < panicked, "{place}: {said}");
        assert!(said.contains("on purpose"), "{place}: {said}");
    }
    let (status, _, said) = PROGRAMS.run_to_end(Command::new(env!("CARGO_BIN_EXE_panics")));
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn a_panic_of_the_engine_over_damaged_files_is_a_refusal_with_its_reason() {
    let directory = DataDir::new();
    let socket = UdpSocket::bind((own_loopback(), 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    drop(socket);
    let data = ["--data-dir", directory.path()];
    let mut node = PROGRAMS.node_at(addr, &[&data[..], &["--declare", "new", "k", "v"]].concat());
    node.process.end_with(Signal::TERM);
    let records = Path::new(directory.path()).join("records.redb");
    let sound = fs::read(&records).unwrap();
    let mut panics = 0;
    for at in (0..sound.len().min(64 << 10)).step_by(256) {
        fs::write(&records, &sound).unwrap();
        let file = fs::File::options().write(true).open(&records).unwrap();
        file.write_all_at(&[0xff; 64], at as u64).unwrap();
        let mut command = PROGRAMS.node_command(addr);
        command.args(data);
        // A directory that can be opened is refused for this flag.
        command.args(["--declare", "new"]);
        let (status, _, said) = PROGRAMS.run_to_end(command);
        assert_eq!(status.code(), Some(1), "{at}: {said}");
        if said.contains("panicked at") {
            panics += 1;
            assert!(said.contains("the records are damaged"), "{at}: {said}");
        }
    }
    assert!(panics > 0, "no damage made the engine panic");
}
