//! The connection to a serving backend: one command at a time, each with its reply.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{Command, Outcome, Readiness, Reply, Request};
use serde::Deserialize;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The connection has ended: the backend has died, or will dial again.
    #[error("the serving process has closed the connection")]
    Closed,
    /// No answer in time, or none that makes sense; the connection has been ended.
    #[error("the serving process does not answer as it should")]
    Failed(#[source] ChannelError),
}

/// What a backend may send once it serves.
#[derive(Deserialize)]
#[serde(untagged)]
enum Incoming {
    Reply(Reply),
    /// A backend that was serving when the KMS came back says so once more.
    Readiness(Readiness),
}

/// A connected backend.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    pid: i32,
    last_id: Mutex<u64>,
}

impl Connection {
    pub(super) fn new(channel: Channel, pid: i32) -> Self {
        Connection {
            channel,
            pid,
            last_id: Mutex::new(0),
        }
    }

    /// Process id of the backend.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the other side has gone.
    pub(super) fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.channel, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let polled = rustix::event::poll(&mut fds, Some(&now));
        polled.is_err()
            || fds[0]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
    }

    /// Ends the connection; a living backend dials again.
    pub(super) fn end(&self) {
        self.channel.shutdown();
    }

    /// Sends a command and waits for its reply, off the runtime.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) async fn request(
        self: &Arc<Self>,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        self.request_with(command, None, timeout).await
    }

    /// The same, with a socket that goes along.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) async fn request_with(
        self: &Arc<Self>,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        let connection = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || connection.exchange(command, socket, timeout));
        task.await
            .unwrap_or_else(|error| Err(CommandError::Failed(ChannelError::Io(io::Error::other(error)))))
    }

    /// The same, for those who may wait.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn exchange(
        &self,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        let mut last_id = self.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        *last_id += 1;
        let answer = self.send_and_receive(
            Request {
                id: *last_id,
                command,
            },
            socket,
            timeout,
        );
        if answer.is_err() {
            // A late reply must not be taken for the next command's.
            self.end();
        }
        answer.map_err(|error| match error {
            ChannelError::Closed => CommandError::Closed,
            other => CommandError::Failed(other),
        })
    }

    fn send_and_receive(
        &self,
        request: Request,
        socket: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, ChannelError> {
        // One deadline for the whole exchange, or a backend that talks of other things could keep it going.
        let deadline = Instant::now() + timeout;
        self.limit_to(deadline)?;
        let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        self.channel.send(&request, &descriptors)?;
        // Its other end must see the end of the process that has it now.
        drop(descriptors);
        drop(socket);
        let mut greeted = false;
        loop {
            self.limit_to(deadline)?;
            match self.channel.receive::<Incoming>()?.0 {
                Incoming::Reply(reply) if reply.id == request.id => return Ok(reply.outcome),
                Incoming::Readiness(Readiness::Ready) if !std::mem::replace(&mut greeted, true) => {}
                Incoming::Reply(_) | Incoming::Readiness(_) => {
                    return Err(ChannelError::Io(io::Error::other(
                        "a message that was not asked for",
                    )));
                }
            }
        }
    }

    fn limit_to(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Less than the kernel's unit would be none at all.
        self.channel.set_timeout(Some(left.max(Duration::from_millis(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(words: usize) -> Result<Outcome, ChannelError> {
        let (ours, theirs) = Channel::pair().unwrap();
        for _ in 0..words {
            theirs.send(&Readiness::Ready, &[]).unwrap();
        }
        let reply = Reply {
            id: 1,
            outcome: Outcome::Done,
        };
        theirs.send(&reply, &[]).unwrap();
        let request = Request {
            id: 1,
            command: Command::Stats,
        };
        Connection::new(ours, 1).send_and_receive(request, None, Duration::from_secs(20))
    }

    #[test]
    fn one_greeting_may_come_before_the_reply() {
        assert_eq!(answers(0).unwrap(), Outcome::Done);
        assert_eq!(answers(1).unwrap(), Outcome::Done);
        assert!(answers(2).is_err());
    }

    #[test]
    fn the_deadline_is_that_of_the_exchange() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let connection = Connection::new(ours, 1);
        assert!(connection.limit_to(Instant::now()).is_err());
    }
}
