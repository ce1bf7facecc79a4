//! A panic ends the process, whichever thread or task it is in, and one of the engine over damaged
//! files does not.

use std::fs;
use std::io::Read as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use dkvs_runtime::panics::STATUS;
use dkvs_tests::process::{DataDir, Programs, own_loopback};
use dkvs_tests::programs;
use flate2::read::GzDecoder;
use rustix::process::Signal;

const PROGRAMS: Programs = programs!();

#[test]
fn a_panic_in_any_thread_or_task_is_logged_and_ends_the_process() {
    for place in [
        "main", "thread", "worker", "task", "blocking", "commit", "read",
    ] {
        let directory = DataDir::new();
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
fn a_panic_of_the_engine_of_format_1_over_damaged_files_is_a_refusal_with_its_reason() {
    let socket = UdpSocket::bind((own_loopback(), 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    drop(socket);
    let with_records = |records: &[u8]| {
        let directory = DataDir::new();
        fs::create_dir_all(directory.path()).unwrap();
        fs::write(Path::new(directory.path()).join("records.redb"), records).unwrap();
        directory
    };
    // As the server of that version left it, the engine checks all of it. Once it was ended in good
    // order, as when it is put aside after a conversion, the engine believes what it finds.
    let sound = {
        let records = &include_bytes!("directories_of_format_1/complete.redb.gz")[..];
        let mut as_killed = Vec::new();
        GzDecoder::new(records).read_to_end(&mut as_killed).unwrap();
        let directory = with_records(&as_killed);
        let mut node = PROGRAMS.node_at(addr, &["--data-dir", directory.path()]);
        node.process.end_with(Signal::TERM);
        fs::read(Path::new(directory.path()).join("before-format-2/records.redb")).unwrap()
    };
    // What has to be refused in any case, since `--declare new` is for a directory without records.
    let refused = |records: &[u8]| {
        let directory = with_records(records);
        let mut command = PROGRAMS.node_command(addr);
        command.args(["--data-dir", directory.path(), "--declare", "new"]);
        let (status, _, said) = PROGRAMS.run_to_end(command);
        assert_eq!(status.code(), Some(1), "{said}");
        said
    };
    let mut panics = 0;
    for at in (0..sound.len().min(64 << 10)).step_by(256) {
        let mut damaged = sound.clone();
        damaged[at..at + 64].fill(0xff);
        let said = refused(&damaged);
        if said.contains("panicked at") {
            panics += 1;
            assert!(said.contains("the records are damaged"), "{at}: {said}");
        }
    }
    assert!(panics > 0, "no damage made the engine panic");
}
