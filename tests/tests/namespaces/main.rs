//! Between network namespaces, with keys: real cables that are cut, real paths that are narrow, and
//! what travels there. Where the machine makes no namespaces, each test says so and ends.

#![cfg(target_os = "linux")]

mod cable;
mod hosts;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::process::Command;

use dkvs_tests::process::Programs;
use dkvs_tests::programs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

const PROGRAMS: Programs = programs!();

const SKIPPED: &str = "skipped: no network namespaces can be made here";

/// Whether the system has done it.
fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Does something on a thread that has moved into a namespace, and with it whatever it starts.
fn within<R: Send>(namespace: &str, act: impl FnOnce() -> R + Send) -> R {
    let file = File::open(format!("/var/run/netns/{namespace}")).unwrap();
    let moved = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(moved).join().unwrap())
}

/// How many datagrams the namespace of this thread has cut up, or put together, or could not.
fn fragments() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let fields = names.split(' ').zip(numbers.split(' '));
    let of_fragments =
        fields.filter(|(name, _)| name.starts_with("Frag") || name.starts_with("Reasm"));
    of_fragments
        .map(|(_, number)| number.parse::<u64>().unwrap_or(0))
        .sum()
}

/// A runtime of this thread alone, so that what it opens is in the namespace of this thread.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
