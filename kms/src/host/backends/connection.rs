//! The connection to a serving backend: commands, each with its reply. Replies come in any order: a backend goes on with
//! other commands while it carries out one that takes long. One task of the runtime receives for all who wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Channel, ChannelError, receive_on, send_on};
use sealblk_proto::message::{ClosedStores, Command, Outcome, Readiness, Reply, Request};
use serde::Deserialize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

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

/// A connected backend. The connection ends when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    line: Arc<Line>,
    pid: i32,
    runtime: Handle,
}

/// What the task that receives has, too.
#[derive(Debug)]
struct Line {
    /// To the runtime, a socket of packets is as one of streams.
    channel: UnixStream,
    desk: Mutex<Desk>,
    /// Whether the connection has ended.
    ended: watch::Sender<bool>,
}

/// What has come of a command, and the descriptors that came with that.
type Answer = (Outcome, Vec<OwnedFd>);

/// Which caller waits for which reply.
#[derive(Debug, Default)]
struct Desk {
    last_id: u64,
    /// Requests whose replies are waited for, those of one in their order. None any more: the connection has ended.
    open: Option<HashMap<u64, VecDeque<oneshot::Sender<Answer>>>>,
    /// Requests whose replies may still come, after nobody has waited for them any more.
    late: HashSet<u64>,
    is_greeted: bool,
}

impl Connection {
    /// Takes a channel over whose other side serves.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(channel: Channel, pid: i32, runtime: &Handle) -> io::Result<Self> {
        let channel = std::os::unix::net::UnixStream::from(OwnedFd::from(channel));
        channel.set_nonblocking(true)?;
        let _entered = runtime.enter();
        let line = Arc::new(Line {
            channel: UnixStream::from_std(channel)?,
            desk: Mutex::new(Desk {
                open: Some(HashMap::new()),
                ..Desk::default()
            }),
            ended: watch::Sender::new(false),
        });
        runtime.spawn(Arc::clone(&line).receive_all(pid));
        Ok(Connection {
            line,
            pid,
            runtime: runtime.clone(),
        })
    }

    /// Process id of the backend.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the other side has gone.
    pub(super) fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.line.channel, PollFlags::RDHUP)];
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
        // The sender lives as long as this object.
        let _ = self.line.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends the connection; a living backend is dialled.
    pub(super) fn end(&self) {
        self.line.end();
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) async fn request(&self, command: Command, timeout: Duration) -> Result<Outcome, CommandError> {
        self.request_with(command, None, timeout).await
    }

    /// A request and its reply, with a socket that goes along.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) async fn request_with(
        &self,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        let may_be_late = matches!(command, Command::Store { .. });
        let answered = self.ask(command, socket, timeout, may_be_late).await;
        answered.map(|(outcome, _)| outcome)
    }

    /// Has the process end, and waits for its answer, and after that for what it has left, which is put into `closed`; both as
    /// long as a process may take for a step.
    ///
    /// # Errors
    /// [`CommandError`] of the answer.
    pub(super) async fn detach(
        &self,
        force: bool,
        closed: &mut Option<ClosedStores>,
    ) -> Result<Outcome, CommandError> {
        let (id, [answer, left]) = self.line.desk().open().ok_or(CommandError::Closed)?;
        let command = Command::Detach { force };
        let deadline = Instant::now() + limits::BACKEND_TIME;
        let answer = self
            .line
            .answer(Request { id, command }, None, answer, deadline)
            .await;
        if matches!(answer, Ok((Outcome::Done, _))) {
            // A process of an earlier version closes the connection without saying so.
            let left = tokio::time::timeout(limits::BACKEND_TIME, left).await;
            if let Ok(Ok((Outcome::Closed(left), _))) = left {
                *closed = Some(left);
            }
        }
        self.line.desk().close(id, false);
        if answer.is_err() {
            self.end();
        }
        answer.map(|(outcome, _)| outcome).map_err(CommandError::from)
    }

    /// A request that can be done without: a reply that does not come in time does not end the connection.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) async fn try_request(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        let answered = self.ask(command, None, timeout, true).await;
        answered.map(|(outcome, _)| outcome)
    }

    /// What comes of something asynchronous, for threads of their own.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A request and its reply, with a socket that goes along, for threads of their own; see [`Connection::request_with`].
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn exchange(
        &self,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        self.wait(self.request_with(command, socket, timeout))
    }

    /// A request that can be done without, for threads of their own; see [`Connection::try_request`].
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn try_exchange(&self, command: Command, timeout: Duration) -> Result<Outcome, CommandError> {
        self.wait(self.try_request(command, timeout))
    }

    /// A request and its reply with the sockets that come with it, for threads of their own.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(super) fn exchange_for_sockets(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<Answer, CommandError> {
        self.wait(self.ask(command, None, timeout, false))
    }

    async fn ask(
        &self,
        command: Command,
        socket: Option<OwnedFd>,
        timeout: Duration,
        may_be_late: bool,
    ) -> Result<Answer, CommandError> {
        let deadline = Instant::now() + timeout;
        let (id, [reply]) = self.line.desk().open().ok_or(CommandError::Closed)?;
        let answer = self
            .line
            .answer(Request { id, command }, socket, reply, deadline)
            .await;
        let is_late = may_be_late && answer.as_ref().is_err_and(is_timeout);
        self.line.desk().close(id, is_late);
        if answer.is_err() && !is_late {
            // The process does not answer as it should.
            self.end();
        }
        answer.map_err(CommandError::from)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

impl Line {
    /// Sends a request, and waits for the answer that comes by `reply`.
    async fn answer(
        &self,
        request: Request,
        socket: Option<OwnedFd>,
        reply: oneshot::Receiver<Answer>,
        deadline: Instant,
    ) -> Result<Answer, ChannelError> {
        let answer = async {
            self.send(request, socket).await?;
            reply.await.map_err(|_| ChannelError::Closed)
        };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ChannelError::Io(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn send(&self, request: Request, socket: Option<OwnedFd>) -> Result<(), ChannelError> {
        let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        // The socket's other end must see the end of the process that has it now: ours is closed when this returns.
        let send = || unless_blocked(send_on(self.channel.as_fd(), &request, &descriptors));
        self.channel.async_io(Interest::WRITABLE, send).await?
    }

    /// Takes what comes until the connection ends.
    async fn receive_all(self: Arc<Self>, pid: i32) {
        let error = loop {
            let receive = || unless_blocked(receive_on::<Incoming>(self.channel.as_fd()));
            let received = self.channel.async_io(Interest::READABLE, receive).await;
            match received.map_err(ChannelError::Io).flatten() {
                Ok((incoming, descriptors)) => {
                    if let Err(error) = self.desk().take(incoming, descriptors) {
                        break ChannelError::Io(error);
                    }
                }
                Err(error) => break error,
            }
        };
        if !matches!(error, ChannelError::Closed) {
            log::warn!("process {pid} is not spoken to any more: {}", with_causes(&error));
        }
        self.end();
    }

    fn end(&self) {
        // The only failure is that the connection has ended already.
        let _ = rustix::net::shutdown(&self.channel, rustix::net::Shutdown::Both);
        // Callers that wait for a reply are told by the end of the senders.
        self.desk().open = None;
        self.ended.send_replace(true);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error for the runtime if the channel is to be waited for.
fn unless_blocked<T>(done: Result<T, ChannelError>) -> io::Result<Result<T, ChannelError>> {
    match done {
        Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        done => Ok(done),
    }
}

impl Desk {
    /// The id of a new request, and what its replies come by; none if the connection has ended.
    fn open<const REPLIES: usize>(&mut self) -> Option<(u64, [oneshot::Receiver<Answer>; REPLIES])> {
        self.last_id += 1;
        let id = Request::KNOWS_ALL | self.last_id;
        let mut senders = VecDeque::with_capacity(REPLIES);
        let replies = std::array::from_fn(|_| {
            let (sender, reply) = oneshot::channel();
            senders.push_back(sender);
            reply
        });
        self.open.as_mut()?.insert(id, senders);
        Some((id, replies))
    }

    /// Nobody waits for a reply any more; one that is late may still come.
    fn close(&mut self, id: u64, is_late: bool) {
        let is_open = self.open.as_mut().and_then(|open| open.remove(&id)).is_some();
        // The reply may have come at the last moment.
        if is_open && is_late {
            self.late.insert(id);
        }
    }

    fn take(&mut self, incoming: Incoming, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match incoming {
            Incoming::Reply(reply) => {
                let mut replies = self.open.as_mut().and_then(|open| open.remove(&reply.id));
                match replies.as_mut().and_then(VecDeque::pop_front) {
                    // An error: nobody waits any more.
                    Some(waiting) => _ = waiting.send((reply.outcome, descriptors)),
                    None if self.late.remove(&reply.id) => {}
                    None => return Err(io::Error::other("a reply to what was not asked")),
                }
                let more = replies.filter(|replies| !replies.is_empty());
                if let (Some(more), Some(open)) = (more, &mut self.open) {
                    open.insert(reply.id, more);
                }
            }
            Incoming::Readiness(Readiness::Ready) if !std::mem::replace(&mut self.is_greeted, true) => {}
            Incoming::Readiness(_) => return Err(io::Error::other("a message that was not asked for")),
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

    const LONG: Duration = Duration::from_secs(20);

    fn connection(channel: Channel) -> Connection {
        Connection::new(channel, 1, &Handle::current()).unwrap()
    }

    fn stats(connection: &Connection) -> impl Future<Output = Result<Outcome, CommandError>> {
        connection.request(Command::Stats, LONG)
    }

    /// What the other side receives next; it must not block the runtime.
    async fn received(channel: &Channel) -> Request {
        let channel = channel.try_clone().unwrap();
        let receive = move || channel.receive::<Request>().unwrap().0;
        tokio::task::spawn_blocking(receive).await.unwrap()
    }

    async fn answers(words: usize) -> Result<Outcome, CommandError> {
        let (ours, theirs) = Channel::pair().unwrap();
        let connection = connection(ours);
        let answer = async {
            let request = received(&theirs).await;
            for _ in 0..words {
                theirs.send(&Readiness::Ready, &[]).unwrap();
            }
            theirs.send(&Reply::to(request.id, Outcome::Done), &[]).unwrap();
        };
        tokio::join!(stats(&connection), answer).0
    }

    #[tokio::test]
    async fn one_greeting_may_come_before_the_reply() {
        assert_eq!(answers(0).await.unwrap(), Outcome::Done);
        assert_eq!(answers(1).await.unwrap(), Outcome::Done);
        assert!(answers(2).await.is_err());
    }

    #[tokio::test]
    async fn a_command_that_is_not_answered_in_time_ends_the_connection() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let connection = connection(ours);
        let answered = connection.request(Command::Stats, Duration::ZERO).await;
        assert!(matches!(answered, Err(CommandError::Failed(_))));
        connection.lost().await;
        assert!(matches!(stats(&connection).await, Err(CommandError::Closed)));
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_told_to_all_who_wait() {
        let (ours, theirs) = Channel::pair().unwrap();
        let connection = connection(ours);
        let end = async {
            received(&theirs).await;
            received(&theirs).await;
            drop(theirs);
            connection.lost().await;
        };
        let (one, other, ()) = tokio::join!(stats(&connection), stats(&connection), end);
        assert!(matches!(one, Err(CommandError::Closed)) && matches!(other, Err(CommandError::Closed)));
        assert!(connection.is_dead());
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_has_ended() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(connection(ours));
        let receive = move || matches!(theirs.receive::<Request>(), Err(ChannelError::Closed));
        assert!(tokio::task::spawn_blocking(receive).await.unwrap());
    }

    /// A backend looks at what a store holds, or examines it, while it carries out other commands.
    #[tokio::test]
    async fn a_command_that_takes_long_holds_up_no_other() {
        let (ours, theirs) = Channel::pair().unwrap();
        let connection = connection(ours);
        let look = || Command::Store { after: None };
        let answer = async {
            let first = received(&theirs).await;
            assert_eq!(first.command, look());
            let second = received(&theirs).await;
            theirs
                .send(&Reply::to(second.id, Outcome::Made(true)), &[])
                .unwrap();
            first.id
        };
        let mut looked = std::pin::pin!(connection.request(look(), LONG));
        let first = tokio::select! {
            biased;
            _ = &mut looked => panic!("nobody has answered"),
            (answered, first) = async { tokio::join!(stats(&connection), answer) } => {
                assert_eq!(answered.unwrap(), Outcome::Made(true));
                first
            }
        };
        theirs.send(&Reply::to(first, Outcome::Done), &[]).unwrap();
        assert_eq!(looked.await.unwrap(), Outcome::Done);
        // Ones that nobody waits for any more may come late, once.
        assert!(
            connection
                .request(look(), Duration::from_millis(20))
                .await
                .is_err()
        );
        let late = received(&theirs).await;
        assert!(
            connection
                .try_request(Command::Stats, Duration::from_millis(20))
                .await
                .is_err()
        );
        let later = received(&theirs).await;
        for id in [late.id, later.id] {
            theirs.send(&Reply::to(id, Outcome::Done), &[]).unwrap();
        }
        let answer = async {
            let request = received(&theirs).await;
            theirs
                .send(&Reply::to(request.id, Outcome::Made(false)), &[])
                .unwrap();
        };
        let (answered, ()) = tokio::join!(stats(&connection), answer);
        assert_eq!(answered.unwrap(), Outcome::Made(false));
        theirs.send(&Reply::to(late.id, Outcome::Done), &[]).unwrap();
        connection.lost().await;
        assert!(stats(&connection).await.is_err());
    }
}
