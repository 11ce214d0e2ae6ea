//! The connection to a serving backend: one command at a time, each with its reply.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
        let connection = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || connection.exchange(command, timeout));
        task.await
            .unwrap_or_else(|error| Err(CommandError::Failed(ChannelError::Io(io::Error::other(error)))))
    }

    fn exchange(&self, command: Command, timeout: Duration) -> Result<Outcome, CommandError> {
        let mut last_id = self.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        *last_id += 1;
        let answer = self.send_and_receive(
            Request {
                id: *last_id,
                command,
            },
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

    fn send_and_receive(&self, request: Request, timeout: Duration) -> Result<Outcome, ChannelError> {
        self.channel.set_timeout(Some(timeout))?;
        self.channel.send(&request, &[])?;
        loop {
            match self.channel.receive::<Incoming>()?.0 {
                Incoming::Reply(reply) if reply.id == request.id => return Ok(reply.outcome),
                Incoming::Readiness(Readiness::Ready) => {}
                Incoming::Reply(_) | Incoming::Readiness(Readiness::Failed(_)) => {
                    return Err(ChannelError::Io(io::Error::other(
                        "a message that was not asked for",
                    )));
                }
            }
        }
    }
}
