//! The sockets in a service's runtime directory at which its processes are reached.

use std::cmp::Reverse;
use std::io;
use std::path::Path;

use rustix::process::Pid;
use sealblk_proto::channel::Channel;
use sealblk_proto::control;

use super::plan::Plan;
use crate::limits;

/// Removes the socket of a process that has ended.
pub(super) fn remove(plan: &Plan, pid: i32) {
    remove_file(&plan.runtime.join(control::name(pid.unsigned_abs())));
}

/// Removes the sockets that processes have left which were never supervised. Nobody who lives is dialled.
pub(super) fn sweep(plan: &Plan) {
    for pid in pids(&plan.runtime, None)
        .into_iter()
        .filter(|pid| !is_alive(*pid))
    {
        let path = plan.runtime.join(control::name(pid.unsigned_abs()));
        // A process of another pid namespace has another number there.
        if matches!(Channel::connect_at_once(&path), Err(error) if is_refusal(&error)) {
            remove_file(&path);
        }
    }
}

/// Whose sockets lie there: `first` first, then those of the highest numbers.
pub(super) fn pids(runtime: &Path, first: Option<i32>) -> Vec<i32> {
    let entries = std::fs::read_dir(runtime).into_iter().flatten().flatten();
    let mut pids: Vec<_> = entries
        .filter_map(|entry| control::pid_of(entry.file_name().to_str()?))
        .collect();
    pids.sort_by_key(|pid| (Some(*pid) != first, Reverse(*pid)));
    pids.truncate(limits::CONTROL_SOCKETS);
    pids
}

/// Nobody listens.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Whether there is a process of this number, its own or another that has come to it.
pub(super) fn is_alive(pid: i32) -> bool {
    let tested = Pid::from_raw(pid).map(rustix::process::test_kill_process);
    !matches!(tested, None | Some(Err(rustix::io::Errno::SRCH)))
}

pub(super) fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("{} cannot be removed: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_given_the_store_comes_first_and_not_everybody_comes() {
        let runtime = tempfile::tempdir().unwrap();
        for name in (1..=500).map(control::name).chain(["kms.sock".to_owned()]) {
            std::fs::write(runtime.path().join(name), "").unwrap();
        }
        let pids = pids(runtime.path(), Some(7));
        assert_eq!(pids.len(), limits::CONTROL_SOCKETS);
        assert_eq!(pids[..3], [7, 500, 499]);
    }
}
