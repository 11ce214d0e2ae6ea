//! Processes by pidfd: no number can be taken for another process's.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::watch;

/// A process that may or may not be a child of ours.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<bool>,
    status: OnceLock<ExitStatus>,
}

impl Process {
    /// The process of this number. A thread waits for its end.
    ///
    /// # Errors
    /// The kernel's, if there is no such process or no thread to be had.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let number = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let pidfd = Arc::new(rustix::process::pidfd_open(number, PidfdFlags::empty())?);
        let (tell, ended) = watch::channel(false);
        let watched = Arc::clone(&pidfd);
        thread::Builder::new()
            .name(format!("watch {pid}"))
            .spawn(move || {
                wait_for_end(&watched);
                tell.send_replace(true);
            })?;
        Ok(Process {
            pid,
            pidfd,
            ended,
            status: OnceLock::new(),
        })
    }

    /// Its number.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        // The sender is dropped only after it has told the end.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
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

    /// Ends it at once. A process that has ended already is no error.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&*self.pidfd, Signal::KILL);
    }
}

/// A pidfd becomes readable when its process ends, and stays so (pidfd_open(2)).
fn wait_for_end(pidfd: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}
