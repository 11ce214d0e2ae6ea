//! Accepts frontends, one after another: a machine that reboots or reconnects is served at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use sealblk_proto::message::SessionDetail;
use std::os::fd::OwnedFd;

use super::backend_channel::BackendChannel;
use super::handover::{Adopted, Suspended};
use super::session::{Interruption, Session};
use super::status::Board;
use super::vring::QueueContext;
use crate::logging;
use crate::sandbox::{Kind, narrow};

/// The server has not been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// A frontend is connected, and the stop was not forced. It goes on, as it was.
    #[error("a virtual machine is connected")]
    FrontendConnected,
    /// The server ends, but has not yet: no frontend is connected any more, nor can connect.
    #[error("requests in flight did not end in time")]
    Busy,
}

/// The server goes on, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuspendError {
    /// Half a message, or requests that do not end.
    #[error("requests in flight, or the frontend's message, did not end in time")]
    Busy,
    /// The server is being stopped.
    #[error("the server is being stopped")]
    Stopped,
}

/// Time between two looks at whether the server has come to rest.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long queues at rest may take to stop when it is too late to take that back.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A listening vhost-user socket and the frontend that is connected to it.
pub struct Server {
    shared: Arc<Shared>,
    context: QueueContext,
    queues: u16,
    thread: Mutex<Option<Thread>>,
}

/// Serves, and at its end gives back what it has if it was asked to.
type Thread = JoinHandle<Option<Suspended>>;

struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
    channel: Arc<BackendChannel>,
    board: Arc<Board>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// The server is to come to rest.
    suspending: bool,
    /// The server is at rest, or about to be: too late to take that back.
    suspended: bool,
    /// A handle to end the present connection with.
    connection: Option<UnixStream>,
    /// Where the next frontend comes in. Only the thread that waits for it holds another handle, so that the socket is closed
    /// when this is taken.
    listener: Option<Arc<UnixListener>>,
    /// The listener is another one: the thread that waits at the former is to wait at this.
    renewed: bool,
}

impl Server {
    /// Serves a disk on `listener`, with at most `queues` virtqueues.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(listener: UnixListener, context: QueueContext, queues: u16) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let server = Self::new(context, queues)?;
        server.spawn(listener, None)?;
        Ok(server)
    }

    /// Goes on with what a predecessor has served.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take_over(adopted: Adopted, context: QueueContext, queues: u16) -> io::Result<Self> {
        let server = Self::new(context, queues)?;
        let session = adopted.session.map(|session| {
            let shared = &server.shared;
            let (channel, board) = (shared.channel.clone(), shared.board.clone());
            Session::adopt(server.context.clone(), channel, board, queues, session)
        });
        server.spawn(adopted.listener, session)?;
        Ok(server)
    }

    fn new(context: QueueContext, queues: u16) -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Server {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wake,
                channel: Arc::default(),
                board: Arc::default(),
            }),
            context,
            queues,
            thread: Mutex::default(),
        })
    }

    fn spawn(&self, listener: UnixListener, session: Option<(UnixStream, Session)>) -> io::Result<()> {
        // Connected from now on, and not only when the thread has begun.
        let connected = session.as_ref().map(|(stream, _)| stream.try_clone());
        {
            let mut state = self.shared.lock();
            state.connection = connected.transpose()?;
            state.listener = Some(Arc::new(listener));
        }
        let (shared, context, queues) = (self.shared.clone(), self.context.clone(), self.queues);
        let thread = std::thread::Builder::new()
            .name("vhost-user".to_owned())
            .spawn(move || {
                narrow(Kind::Session);
                shared.run(&context, queues, session)
            })?;
        *self.thread() = Some(thread);
        Ok(())
    }

    fn thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes what is in flight, takes no more, and gives everything to the caller, without the frontend's noticing. The
    /// queues are to be at rest at the barrier: whether their requests end in time is found there, where it can be taken
    /// back.
    ///
    /// # Errors
    /// [`SuspendError`]; then it serves on.
    pub fn suspend(&self, deadline: Instant) -> Result<Suspended, SuspendError> {
        self.shared.lock().suspending = true;
        self.shared.wake();
        let mut thread = self.thread();
        while !thread.as_ref().is_some_and(JoinHandle::is_finished) {
            if thread.is_none() {
                return Err(SuspendError::Stopped);
            }
            if Instant::now() >= deadline {
                let mut state = self.shared.lock();
                if !state.suspended {
                    state.suspending = false;
                    self.shared.sleep_again();
                    return Err(SuspendError::Busy);
                }
            }
            if Instant::now() >= deadline + STOP_PATIENCE {
                // The next process serves what this one cannot any more.
                log::error!("the queues do not stop");
                logging::abort();
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        match thread.take().map(JoinHandle::join) {
            Some(Ok(Some(suspended))) => Ok(suspended),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(None)) | None => Err(SuspendError::Stopped),
        }
    }

    /// Goes on after all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resume(&self, suspended: Suspended) -> io::Result<()> {
        {
            let mut state = self.shared.lock();
            (state.suspending, state.suspended) = (false, false);
        }
        self.shared.sleep_again();
        self.spawn(suspended.listener, suspended.session)
    }

    /// Another handle on the listening socket; none while the server is being stopped or is at rest.
    pub fn listener(&self) -> Option<UnixListener> {
        self.shared.lock().listener.as_ref()?.try_clone().ok()
    }

    /// Takes connections from `listener` from now on, instead of from the socket that it had. A frontend that is connected
    /// stays so.
    ///
    /// # Errors
    /// The kernel's; or that it is being stopped or at rest. Then nothing has changed.
    pub fn listen_on(&self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut state = self.shared.lock();
        if state.listener.is_none() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        state.listener = Some(Arc::new(listener));
        state.renewed = true;
        self.shared.wake();
        Ok(())
    }

    /// Whether a frontend is connected.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().connection.is_some()
    }

    /// What the frontend has set up, and what is wrong with it. Never waits.
    pub fn detail(&self) -> SessionDetail {
        self.shared.board.detail()
    }

    /// Tells the frontend, if there is one and if it wants to hear of it, that the disk has [grown](Disk::grow). Never waits.
    /// Returns whether a frontend was told; one that was not sees the size when it connects anew.
    pub fn notify_config_change(&self) -> bool {
        self.shared.channel.config_changed()
    }

    /// Stops listening, ends the connection after its requests in flight have been completed, and waits for that.
    ///
    /// # Errors
    /// [`StopError::FrontendConnected`], unless forced.
    pub fn stop(&self, force: bool) -> Result<(), StopError> {
        Self::stop_all(&[self], force)
    }

    /// The same, but waits only so long. To be called again if that was not enough.
    ///
    /// # Errors
    /// [`StopError`].
    pub(crate) fn stop_within(&self, force: bool, patience: Duration) -> Result<(), StopError> {
        let deadline = Instant::now() + patience;
        Self::begin_stop(&[self], force)?;
        while self.thread().as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= deadline {
                return Err(StopError::Busy);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.join();
        Ok(())
    }

    /// Stops several, or none of them.
    ///
    /// # Errors
    /// [`StopError::FrontendConnected`] if one is connected to any, unless forced.
    pub fn stop_all(servers: &[&Server], force: bool) -> Result<(), StopError> {
        Self::begin_stop(servers, force)?;
        for server in servers {
            server.join();
        }
        Ok(())
    }

    fn begin_stop(servers: &[&Server], force: bool) -> Result<(), StopError> {
        {
            // Nobody can connect until it is settled for all.
            let mut states: Vec<_> = servers.iter().map(|server| server.shared.lock()).collect();
            if !force && states.iter().any(|state| state.connection.is_some()) {
                return Err(StopError::FrontendConnected);
            }
            for state in &mut states {
                // First, for a frontend that connects anew at once, as cloud-hypervisor does, is to be refused, and try
                // again. If it came to a socket that nobody accepts on any more, it would be reset, and give up.
                drop(state.listener.take());
                if let Some(connection) = &state.connection {
                    // The connection may have ended by itself.
                    let _ = connection.shutdown(std::net::Shutdown::Both);
                }
                state.stopping = true;
            }
        }
        for server in servers {
            server.shared.wake();
        }
        Ok(())
    }

    /// Waits for the end of a server that is being stopped.
    fn join(&self) {
        // A second caller waits here for the lock, until the first has seen the end.
        if let Some(Err(panic)) = self.thread().take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Forced, so there is nothing to refuse.
        let _ = self.stop(true);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the thread is being woken already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// What it was woken for is done with, or given up.
    fn sleep_again(&self) {
        // Fails only when nobody has woken it.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Serves `first`, if there is one, and then each frontend that connects.
    fn run(
        &self,
        context: &QueueContext,
        queues: u16,
        first: Option<(UnixStream, Session)>,
    ) -> Option<Suspended> {
        let mut next = first;
        loop {
            let resting = next
                .take()
                .and_then(|(stream, session)| Some((self.serve(&stream, session)?, stream)));
            if let Some((session, stream)) = resting {
                return self.suspended(Some((stream, session)));
            }
            if self.lock().stopping {
                return None;
            }
            if self.must_rest() {
                return self.suspended(None);
            }
            // Closed: it is being stopped.
            let listener = self.lock().listener.clone()?;
            match accept(&listener, self.wake.as_fd()) {
                Ok(Some(stream)) => {
                    context
                        .limits
                        .connects
                        .log(|before| log::info!("a frontend has connected ({before} such before)"));
                    let (channel, board) = (self.channel.clone(), self.board.clone());
                    let session = Session::new(context.clone(), channel, board, queues);
                    next = Some((stream, session));
                }
                Ok(None) => {}
                Err(error) => {
                    context
                        .limits
                        .connects
                        .log(|before| log::warn!("a connection was not accepted: {error} ({before} before)"));
                    // Out of descriptors or memory; do not spin.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
    }

    /// At rest, with the listener, which nobody waits for any more; none if it is being stopped.
    fn suspended(&self, session: Option<(UnixStream, Session)>) -> Option<Suspended> {
        let listener = self.lock().listener.take().and_then(Arc::into_inner)?;
        Some(Suspended { listener, session })
    }

    /// Whether to come to rest; if so, that is settled.
    fn must_rest(&self) -> bool {
        let mut state = self.lock();
        if std::mem::take(&mut state.renewed) {
            // No other reason to wake is lost with this: each is noted under the lock before the wake-up.
            self.sleep_again();
        }
        state.suspended |= state.suspending && !state.stopping;
        state.suspended
    }

    /// Gives the session back if it was to come to rest.
    fn serve(&self, stream: &UnixStream, session: Session) -> Option<Session> {
        {
            let mut state = self.lock();
            if state.stopping {
                return None;
            }
            match stream.set_nonblocking(false).and_then(|()| stream.try_clone()) {
                Ok(handle) => state.connection = Some(handle),
                Err(error) => {
                    log::warn!("a connection was not accepted: {error}");
                    return None;
                }
            }
        }
        let interruption = Interruption {
            wake: self.wake.as_fd(),
            is_due: &|| self.must_rest(),
        };
        let session = session.serve(stream, &interruption);
        // The connection has ended, or is a successor's from now on: not to be shut down here.
        self.lock().connection = None;
        session
    }
}

/// Waits for a connection or a wake-up.
fn accept(listener: &UnixListener, wake: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::from_borrowed_fd(wake, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    if fds[0].revents().is_empty() {
        return Ok(None);
    }
    // Other processes have the listening socket, too, and one may have cleared O_NONBLOCK, which is of the open file:
    // accept(2) would then hold this thread up.
    listener.set_nonblocking(true)?;
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::barrier::Barrier;
    use crate::disk::Disk;
    use crate::store::{RawStore, Store};
    use crate::units::{ByteLen, Capacity};
    use crate::vhost::{Crew, Tuning};

    /// The socket's maker and other processes of the attachment have it, too, and can clear its O_NONBLOCK.
    #[test]
    fn a_listening_socket_that_may_wait_holds_no_end_up() {
        let capacity = Capacity::new(ByteLen(4096)).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let store = Store::Raw(RawStore::open(file, capacity).unwrap());
        let disk = Arc::new(Disk::new(capacity, false, "", None, store));
        let context = QueueContext::new(
            disk,
            Arc::new(Barrier::default()),
            Tuning::default(),
            Crew::new(1).unwrap(),
        );
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let theirs = listener.try_clone().unwrap();
        let adopted = Adopted {
            listener,
            session: None,
        };
        let server = Server::take_over(adopted, context, 1).unwrap();
        theirs.set_nonblocking(false).unwrap();
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(server.stop(false)));
        assert_eq!(end.recv_timeout(Duration::from_secs(30)).unwrap(), Ok(()));
    }
}
