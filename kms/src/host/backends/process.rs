//! Processes by pidfd: no number can be taken for another process's.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;

use crate::limits;

/// Tells a process from all others, of this boot and of earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In clock ticks after the boot (proc_pid_stat(5), field 22).
    pub(crate) start: i64,
    /// The kernel's random id of the boot.
    pub(crate) boot: String,
}

impl Identity {
    fn read(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Identity {
            pid,
            start: start_time(&String::from_utf8_lossy(&stat)).ok_or(io::ErrorKind::InvalidData)?,
            boot: boot.trim().to_owned(),
        })
    }
}

/// Field 22; the second field is a name in brackets, in which there may be anything.
fn start_time(stat: &str) -> Option<i64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// A process that may or may not be a child of ours.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    pidfd: OwnedFd,
    identity: Option<Identity>,
    status: OnceLock<ExitStatus>,
    killed: AtomicBool,
}

impl Process {
    /// The process of this number.
    ///
    /// # Errors
    /// The kernel's, if there is no such process.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let number = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let pidfd = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
        // Read while the pidfd keeps the number from being another's, if the process lives afterwards.
        let identity = Identity::read(pid).ok().filter(|_| !has_ended(&pidfd));
        Ok(Process {
            pid,
            pidfd,
            identity,
            status: OnceLock::new(),
            killed: AtomicBool::new(false),
        })
    }

    /// The process of this identity, if it still lives.
    pub(super) fn find(identity: &Identity) -> Option<Self> {
        let process = Process::open(identity.pid).ok()?;
        (process.identity() == Some(identity)).then_some(process)
    }

    /// The process's number, start and boot; none if it had ended when it was opened, or `/proc` does not show it.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether the process runs as this user.
    pub(super) fn is_of(&self, uid: u32) -> bool {
        let status = std::fs::read(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        effective_uid(&String::from_utf8_lossy(&status)) == Some(uid) && !has_ended(&self.pidfd)
    }

    /// Number of the process.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end: a pidfd becomes readable then, and stays so (pidfd_open(2)).
    pub(super) async fn ended(&self) {
        // Several may wait, each with a descriptor of its own; and the runtime watches any as it does a pipe's.
        let watched = self.pidfd.try_clone();
        match watched.and_then(Receiver::from_owned_fd_unchecked) {
            Ok(pidfd) if pidfd.readable().await.is_ok() => {}
            // There was no descriptor to be had, or the kernel watches no more.
            _ => {
                while !has_ended(&self.pidfd) {
                    tokio::time::sleep(limits::END_LOOK_TIME).await;
                }
            }
        }
    }

    /// Waits for its end, at most so long. Whether it has ended.
    pub(super) async fn ended_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.ended()).await.is_ok()
    }

    /// Waits for the end of our own child and takes its status, so that no zombie stays.
    pub(super) async fn reap(&self, mut child: Child) {
        self.ended().await;
        if let Ok(status) = child.wait() {
            let _ = self.status.set(status);
        }
    }

    /// How it ended, if it was our child and has been reaped.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.status.get().copied()
    }

    /// Ends it at once. A process that has ended already is no error. Whether that was done before.
    pub(super) fn kill(&self) -> bool {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.killed.swap(true, Ordering::Relaxed)
    }

    /// Whether the process is ending: it does nothing more, but the kernel may not let go of it before the I/O of one of its
    /// threads has ended. The first thread has ended or is to.
    pub(super) fn is_ending(&self) -> bool {
        let status = std::fs::read(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        !has_ended(&self.pidfd) && is_ending(&String::from_utf8_lossy(&status))
    }
}

/// proc_pid_status(5): real, effective, saved set and file system's.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// proc_pid_status(5).
fn is_ending(status: &str) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default()
    };
    let kills = |name| u64::from_str_radix(field(name), 16).is_ok_and(|set| set & KILL != 0);
    field("State:").starts_with(['Z', 'X']) || kills("SigPnd:") || kills("ShdPnd:")
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_identity_only() {
        let own = Process::open(std::process::id() as i32).unwrap();
        let identity = own.identity().unwrap().clone();
        assert!(Process::find(&identity).is_some());
        let later = Identity {
            start: identity.start + 1,
            ..identity.clone()
        };
        let rebooted = Identity {
            boot: "another".to_owned(),
            ..identity
        };
        assert!(Process::find(&later).is_none() && Process::find(&rebooted).is_none());
    }

    #[test]
    fn a_process_is_its_user_s() {
        let own = Process::open(std::process::id() as i32).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert!(own.is_of(uid) && !own.is_of(uid + 1));
        assert_eq!(effective_uid("Name:\tUid: 7\nUid:\t1\t2\t3\t4\n"), Some(2));
    }

    #[test]
    fn one_that_is_ending_is_told_from_one_that_runs() {
        let status = |state: &str, own: &str, shared: &str| {
            is_ending(&format!(
                "Name:\tState: Z\nState:\t{state}\nSigPnd:\t{own}\nShdPnd:\t{shared}\n"
            ))
        };
        let (none, hangup, kill) = ("0000000000000000", "0000000000000001", "0000000000000100");
        assert!(!status("S (sleeping)", none, none) && !status("D (disk sleep)", hangup, none));
        assert!(status("Z (zombie)", none, none));
        assert!(status("D (disk sleep)", kill, none) && status("D (disk sleep)", none, kill));
        assert!(!is_ending(""), "it has ended");
        assert!(!Process::open(std::process::id() as i32).unwrap().is_ending());
    }

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let rest = (3..=30)
            .map(|field| field.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(start_time(&format!("7 (a) b) {rest}")), Some(22));
        assert_eq!(start_time("7 (a"), None);
    }
}
