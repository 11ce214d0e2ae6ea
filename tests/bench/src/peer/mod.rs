//! The backends that are compared, each on an image of its own.

mod fio;
mod qemu;
mod sealblk;

use std::path::{Path, PathBuf};

pub(crate) use fio::Fio;
pub(crate) use qemu::StorageDaemon;
pub(crate) use sealblk::Daemons;

/// A backend that listens.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// For tables.
    pub(crate) name: &'static str,
    /// Its vhost-user socket.
    pub(crate) socket: PathBuf,
    /// Its process.
    pub(crate) pid: i32,
}

/// Nanoseconds of processor time that a process has used, all its threads together, the kernel's for it included.
///
/// Threads that have ended do not count: backends keep theirs for as long as a connection lasts, so that it must be asked
/// before and after a load on one connection.
pub(crate) fn processor_time(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    tasks
        .flatten()
        .filter_map(|task| time_of_task(&task.path()))
        .sum()
}

/// proc(5), `/proc/pid/schedstat`.
fn time_of_task(task: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Resident memory of a process, in bytes (proc(5), `VmRSS`), without what is shared with the load generator.
pub(crate) fn resident(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}
