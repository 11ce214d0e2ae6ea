//! The connection to a serving backend: commands, each with its reply. Replies come in any order: a backend goes on with
//! other commands while it carries out one that takes long.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{ClosedStores, Command, Outcome, Readiness, Reply, Request};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::limits;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The connection has ended: the backend has died, or will be dialled.
    #[error("the serving process has closed the connection")]
    Closed,
    /// No answer in time, or none that makes sense; the connection has been ended.
    #[error("the serving process does not answer as it should")]
    Failed(#[source] ChannelError),
}

impl From<ChannelError> for CommandError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Closed => CommandError::Closed,
            other => CommandError::Failed(other),
        }
    }
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
    /// Its timeout is that of sending; replies are waited for by [`Connection::receive`].
    channel: Channel,
    pid: i32,
    desk: Mutex<Desk>,
    /// Told when a reply has come, and when nobody receives.
    news: Condvar,
    /// Told when this side has ended the connection.
    ended: Notify,
}

/// What has come of a command, and the descriptors that came with that.
type Answer = (Outcome, Vec<OwnedFd>);

/// Who waits for what.
#[derive(Debug, Default)]
struct Desk {
    last_id: u64,
    /// Requests whose replies are waited for.
    open: HashSet<u64>,
    /// Those of which one has come.
    replies: HashMap<u64, Answer>,
    /// Those whose replies may still come, after nobody has waited for them any more.
    late: HashSet<u64>,
    /// One of those who wait receives for all.
    is_receiving: bool,
    is_greeted: bool,
}

impl Connection {
    pub(super) fn new(channel: Channel, pid: i32) -> Self {
        Connection {
            channel,
            pid,
            desk: Mutex::default(),
            news: Condvar::new(),
            ended: Notify::new(),
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

    /// Waits until the connection has ended.
    pub(super) async fn lost(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_dead() {
                return;
            }
            // Only the other side's end is to be looked for.
            let _ = tokio::time::timeout(limits::CONNECTION_LOOK_TIME, ended).await;
        }
    }

    /// Ends the connection; a living backend is dialled.
    pub(super) fn end(&self) {
        self.channel.shutdown();
        self.ended.notify_waiters();
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

    /// Has the process end, and waits for its answer, and after that for what it has left, which is put into `closed`; both as
    /// long as a process may take for a step.
    ///
    /// # Errors
    /// [`CommandError`] of the answer.
    pub(super) async fn detach(
        self: &Arc<Self>,
        force: bool,
        closed: &mut Option<ClosedStores>,
    ) -> Result<Outcome, CommandError> {
        let connection = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || connection.end_store(force));
        let (outcome, left) = task.await.unwrap_or_else(|error| {
            let error = ChannelError::Io(io::Error::other(error));
            (Err(CommandError::Failed(error)), None)
        });
        *closed = left;
        outcome
    }

    fn end_store(&self, force: bool) -> (Result<Outcome, CommandError>, Option<ClosedStores>) {
        let command = Command::Detach { force };
        let id = self.desk().open();
        let answer = self
            .send(Request { id, command }, None)
            .and_then(|()| self.reply_to(id, Instant::now() + limits::BACKEND_TIME));
        let (answer, closed) = match answer {
            // One of an earlier version closes the connection without.
            Ok((Outcome::Done, _)) => match self.reply_to(id, Instant::now() + limits::BACKEND_TIME) {
                Ok((Outcome::Closed(closed), _)) => (Ok(Outcome::Done), Some(closed)),
                _ => (Ok(Outcome::Done), None),
            },
            // Whoever has received both for us has kept the last.
            Ok((Outcome::Closed(closed), _)) => (Ok(Outcome::Done), Some(closed)),
            Ok((outcome, _)) => (Ok(outcome), None),
            Err(error) => (Err(error), None),
        };
        self.desk().close(id, false);
        if answer.is_err() {
            self.end();
        }
        (answer.map_err(CommandError::from), closed)
    }

    /// The same as a request, for those who may wait.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn exchange(
        &self,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        let may_be_late = matches!(command, Command::Store { .. });
        self.exchange_all(command, socket, timeout, may_be_late)
            .map(|(outcome, _)| outcome)
    }

    /// The same, for what can be done without: an answer that does not come in time does not end the connection.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn try_exchange(&self, command: Command, timeout: Duration) -> Result<Outcome, CommandError> {
        self.exchange_all(command, None, timeout, true)
            .map(|(outcome, _)| outcome)
    }

    /// As [`Connection::exchange`], with what comes with the answer.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn exchange_for_sockets(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        self.exchange_all(command, None, timeout, false)
    }

    fn exchange_all(
        &self,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
        may_be_late: bool,
    ) -> Result<Answer, CommandError> {
        let deadline = Instant::now() + timeout;
        let id = self.desk().open();
        let answer = self
            .send(Request { id, command }, socket)
            .and_then(|()| self.reply_to(id, deadline));
        let is_late = may_be_late && answer.as_ref().is_err_and(is_timeout);
        self.desk().close(id, is_late);
        if answer.is_err() && !is_late {
            // It does not do what it should.
            self.end();
        }
        answer.map_err(CommandError::from)
    }

    fn send(&self, request: Request, socket: Option<OwnedFd>) -> Result<(), ChannelError> {
        let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        // Its other end must see the end of the process that has the socket now: ours is closed when this returns.
        self.channel.send(&request, &descriptors)
    }

    /// Waits for a reply, and receives those of others meanwhile, if nobody else does.
    fn reply_to(&self, id: u64, deadline: Instant) -> Result<Answer, ChannelError> {
        let mut desk = self.desk();
        loop {
            if let Some(answer) = desk.replies.remove(&id) {
                return Ok(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ChannelError::Io(io::ErrorKind::TimedOut.into()));
            }
            if desk.is_receiving {
                let waited = self.news.wait_timeout(desk, left);
                desk = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            desk.is_receiving = true;
            drop(desk);
            let received = self.receive(left);
            desk = self.desk();
            desk.is_receiving = false;
            self.news.notify_all();
            if let Some((incoming, descriptors)) = received? {
                desk.take(incoming, descriptors)?;
            }
        }
    }

    /// What comes next; none if nothing comes in time.
    fn receive(&self, time: Duration) -> Result<Option<(Incoming, Vec<OwnedFd>)>, ChannelError> {
        let mut fds = [PollFd::new(&self.channel, PollFlags::IN)];
        let time = Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
            Ok(_) => Ok(Some(self.channel.receive::<Incoming>()?)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// The id of a new request.
    fn open(&mut self) -> u64 {
        self.last_id += 1;
        let id = Request::KNOWS_ALL | self.last_id;
        self.open.insert(id);
        id
    }

    /// Nobody waits for a reply any more; one that is late may still come.
    fn close(&mut self, id: u64, is_late: bool) {
        self.open.remove(&id);
        // It may have come at the last moment.
        if self.replies.remove(&id).is_none() && is_late {
            self.late.insert(id);
        }
    }

    fn take(&mut self, incoming: Incoming, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match incoming {
            Incoming::Reply(reply) if self.open.contains(&reply.id) => {
                self.replies.insert(reply.id, (reply.outcome, descriptors));
            }
            Incoming::Reply(reply) if self.late.remove(&reply.id) => {}
            Incoming::Readiness(Readiness::Ready) if !std::mem::replace(&mut self.is_greeted, true) => {}
            Incoming::Reply(_) | Incoming::Readiness(_) => {
                return Err(io::Error::other("a message that was not asked for"));
            }
        }
        Ok(())
    }
}

fn is_timeout(error: &ChannelError) -> bool {
    matches!(error, ChannelError::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(words: usize) -> Result<Outcome, CommandError> {
        let (ours, theirs) = Channel::pair().unwrap();
        for _ in 0..words {
            theirs.send(&Readiness::Ready, &[]).unwrap();
        }
        theirs
            .send(&Reply::to(Request::KNOWS_ALL | 1, Outcome::Done), &[])
            .unwrap();
        Connection::new(ours, 1).exchange(Command::Stats, None, Duration::from_secs(20))
    }

    #[test]
    fn one_greeting_may_come_before_the_reply() {
        assert_eq!(answers(0).unwrap(), Outcome::Done);
        assert_eq!(answers(1).unwrap(), Outcome::Done);
        assert!(answers(2).is_err());
    }

    #[test]
    fn a_command_that_is_not_answered_in_time_ends_the_connection() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let connection = Connection::new(ours, 1);
        let answered = connection.exchange(Command::Stats, None, Duration::ZERO);
        assert!(matches!(answered, Err(CommandError::Failed(_))));
        let answered = connection.exchange(Command::Stats, None, Duration::from_secs(20));
        assert!(matches!(answered, Err(CommandError::Closed)));
    }

    /// A backend looks at what a store holds while it carries out other commands.
    #[test]
    fn a_look_that_takes_long_holds_up_no_other_command() {
        let (ours, theirs) = Channel::pair().unwrap();
        let connection = Connection::new(ours, 1);
        let look = || Command::Store { after: None };
        std::thread::scope(|scope| {
            let looked = scope.spawn(|| connection.exchange(look(), None, Duration::from_secs(20)));
            let (first, _) = theirs.receive::<Request>().unwrap();
            assert_eq!(first.command, look());
            let asked = scope.spawn(|| connection.exchange(Command::Stats, None, Duration::from_secs(20)));
            let (second, _) = theirs.receive::<Request>().unwrap();
            theirs
                .send(&Reply::to(second.id, Outcome::Made(true)), &[])
                .unwrap();
            assert_eq!(asked.join().unwrap().unwrap(), Outcome::Made(true));
            theirs.send(&Reply::to(first.id, Outcome::Done), &[]).unwrap();
            assert_eq!(looked.join().unwrap().unwrap(), Outcome::Done);
        });
        // One that nobody waits for any more may come late, once.
        assert!(connection.exchange(look(), None, Duration::ZERO).is_err());
        let (late, _) = theirs.receive::<Request>().unwrap();
        theirs.send(&Reply::to(late.id, Outcome::Done), &[]).unwrap();
        theirs
            .send(&Reply::to(late.id + 1, Outcome::Made(false)), &[])
            .unwrap();
        let answered = connection.exchange(Command::Stats, None, Duration::from_secs(20));
        assert_eq!(answered.unwrap(), Outcome::Made(false));
        theirs.send(&Reply::to(late.id, Outcome::Done), &[]).unwrap();
        assert!(
            connection
                .exchange(Command::Stats, None, Duration::from_secs(20))
                .is_err()
        );
    }
}
