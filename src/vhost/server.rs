//! Accepts frontends, one after another: a machine that reboots or reconnects is served at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use std::os::fd::OwnedFd;

use super::backend_channel::BackendChannel;
use super::session::Session;
use super::vring::QueueContext;
use crate::barrier::Barrier;
use crate::disk::Disk;

/// The server goes on, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// A frontend is connected, and the stop was not forced.
    #[error("a virtual machine is connected")]
    FrontendConnected,
}

/// A listening vhost-user socket and whoever is connected to it.
pub struct Server {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
    channel: Arc<BackendChannel>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// A handle to end the present connection with.
    connection: Option<UnixStream>,
}

impl Server {
    /// Serves `disk` on `listener`, with at most `queues` virtqueues.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(
        listener: UnixListener,
        disk: Arc<Disk>,
        barrier: Arc<Barrier>,
        queues: u16,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake,
            channel: Arc::default(),
        });
        let context = QueueContext {
            disk,
            barrier,
            limits: Arc::default(),
        };
        let thread = std::thread::Builder::new().name("vhost-user".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.accept_loop(&listener, &context, queues)
        })?;
        Ok(Server {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether a frontend is connected.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().connection.is_some()
    }

    /// Tells the frontend, if there is one and if it wants to hear of it, that the disk has [grown](Disk::grow). Never waits.
    /// Returns whether somebody was told; whoever was not sees the size when he connects anew.
    pub fn notify_config_change(&self) -> bool {
        self.shared.channel.config_changed()
    }

    /// Stops listening, ends the connection after its requests in flight have been completed, and waits for that.
    ///
    /// # Errors
    /// [`StopError::FrontendConnected`], unless forced.
    pub fn stop(&self, force: bool) -> Result<(), StopError> {
        {
            let mut state = self.shared.lock();
            if let Some(connection) = &state.connection {
                if !force {
                    return Err(StopError::FrontendConnected);
                }
                // It may have ended by itself.
                let _ = connection.shutdown(std::net::Shutdown::Both);
            }
            state.stopping = true;
        }
        // Fails only when the counter is full, and then the thread is being woken already.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        // Whoever comes second waits here until the first has seen the end.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(panic)) = thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        Ok(())
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

    fn accept_loop(&self, listener: &UnixListener, context: &QueueContext, queues: u16) {
        while !self.lock().stopping {
            match accept(listener, self.wake.as_fd()) {
                Ok(Some(stream)) => self.serve(stream, context, queues),
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

    fn serve(&self, stream: UnixStream, context: &QueueContext, queues: u16) {
        {
            let mut state = self.lock();
            if state.stopping {
                return;
            }
            match stream.set_nonblocking(false).and_then(|()| stream.try_clone()) {
                Ok(handle) => state.connection = Some(handle),
                Err(error) => {
                    log::warn!("a connection was not accepted: {error}");
                    return;
                }
            }
        }
        context
            .limits
            .connects
            .log(|before| log::info!("a frontend has connected ({before} such before)"));
        Session::new(context.clone(), self.channel.clone(), queues).serve(&stream);
        self.lock().connection = None;
    }
}

/// Waits for a connection or a wake-up.
fn accept(listener: &UnixListener, wake: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::from_borrowed_fd(wake, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}
