//! What the system reports of itself and of processes; nothing where it reports nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::Context;
use serde_json::{Value, json};

/// What is measured on, and what is measured.
pub fn describe() -> Value {
    let cores = thread::available_parallelism().map_or(0, |cores| cores.get());
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    json!({
        "cores": cores,
        "cpu": cpu_model(),
        "system": text(uname.sysname()),
        "kernel": text(uname.release()),
        "commit": commit(),
    })
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit that the sources are at; with changes, that is said.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .output()
            .ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(match changed.is_empty() {
        true => commit,
        false => format!("{commit} with changes"),
    })
}

/// The processor time that a process has used, in seconds.
pub fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let ticks = cpu_ticks(&text).context("the system tells no processor time")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// How many bytes a process has had written to disks so far.
pub fn bytes_written(process: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/io"))?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(count.context("the system counts no writes")?.parse()?)
}

/// How many bytes a process has passed to the system to be written to files so far.
pub fn bytes_passed(process: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/io"))?;
    let count = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(count.context("the system counts no writes")?.parse()?)
}

/// What the files of a directory, and of those in it, take of the disk, in bytes. A file that goes
/// meanwhile counts as nothing.
pub fn bytes_on_disk(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_on_disk(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(bytes)
}

/// The fields utime and stime, which are the 14th and the 15th. The second is the program's name
/// in brackets and may have anything in it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// How many datagrams of UDP have arrived on this machine since it started.
pub fn datagrams_arrived() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    udp_number(&text, "InDatagrams").context("the system counts no datagrams")
}

/// One of the numbers of UDP: their names stand in one line, they in the next.
fn udp_number(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next()?.split_ascii_whitespace();
    let numbers = lines.next()?.split_ascii_whitespace();
    let (_, number) = names.zip(numbers).find(|(other, _)| *other == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_system_are_understood() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4 100 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        let snmp =
            "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams NoPorts\nUdp: 17 3\nUdpLite: A\nUdpLite: 1\n";
        assert_eq!(udp_number(snmp, "InDatagrams"), Some(17));
        assert_eq!(udp_number(snmp, "Other"), None);
        assert_eq!(udp_number("", "InDatagrams"), None);
    }
}
