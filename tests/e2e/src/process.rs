//! Processes of a test: found by the test's own directory in their arguments, signalled by their id.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Whether the process runs; one that has ended and awaits its parent does not.
pub fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Sends a signal. A process that has ended meanwhile is fine.
///
/// # Panics
/// If the id is none.
pub fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id is positive");
    // The only failure is that the process has ended.
    let _ = kill_process(pid, signal);
}

/// Kills with SIGKILL and waits for the end.
pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
    eventually("the end of a killed process", || (!is_running(pid)).then_some(()));
}

/// Ids of the running processes that have `directory` in their arguments.
pub fn processes_of(directory: &Path) -> Vec<i32> {
    let needle = directory.to_string_lossy().into_owned();
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != own && is_running(*pid) && arguments(*pid).contains(&needle))
        .collect()
}

/// Arguments of a process, separated by zero bytes.
pub fn arguments(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
