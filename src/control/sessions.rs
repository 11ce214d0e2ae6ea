//! The sessions of one disk: for each of its attachments a socket, and the frontend that is connected to it. Sessions share the disk, its
//! store and the barrier, so that sessions are to each other as the queues of one session are.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;
use sealblk_proto::message::{Failure, SessionConfig, SessionStatus, code};

use super::measure::Measure;
use crate::limits::{MAX_QUEUES, MAX_SESSIONS};
use crate::logging;
use crate::socket::OwnedPath;
use crate::vhost::{Adopted, QueueContext, Server, StopError, SuspendError, Suspended};

/// All sessions of a disk.
pub struct Sessions {
    context: QueueContext,
    served: Mutex<Vec<Served>>,
    measure: Measure,
}

struct Served {
    config: SessionConfig,
    server: Server,
    /// The socket's path, if it was made here: to be removed before a detach is answered.
    path: Option<OwnedPath>,
}

impl Sessions {
    /// None yet.
    pub fn new(context: QueueContext) -> Self {
        Sessions {
            context,
            served: Mutex::default(),
            measure: Measure::default(),
        }
    }

    /// Bytes that the disk's store takes on its medium, as last measured if that does not answer soon.
    pub(super) fn allocated(&self) -> u64 {
        let disk = self.context.disk.clone();
        self.measure
            .take(move || disk.store().allocated().map(|bytes| bytes.0))
    }

    /// Serves one more attachment.
    ///
    /// # Errors
    /// A [`Failure`] for the KMS; then nothing has changed.
    pub fn add(
        &self,
        config: SessionConfig,
        socket: UnixListener,
        path: Option<OwnedPath>,
    ) -> Result<(), Failure> {
        let mut served = self.lock();
        check(&served, &config, self.context.queues())?;
        let server = Server::start(socket, self.context_of(&served, &config), config.queues);
        let server = server.map_err(|error| unusable(&error))?;
        served.push(Served { config, server, path });
        Ok(())
    }

    /// Goes on with what a predecessor has served.
    ///
    /// # Errors
    /// A [`Failure`] for the KMS.
    pub fn adopt(&self, config: SessionConfig, adopted: Adopted) -> Result<(), Failure> {
        let mut served = self.lock();
        check(&served, &config, self.context.queues())?;
        let context = self.context_of(&served, &config);
        let server = Server::take_over(adopted, context, config.queues).map_err(|error| unusable(&error))?;
        served.push(Served {
            config,
            server,
            path: None,
        });
        Ok(())
    }

    /// Serves an attachment, which is served already, on another socket from now on. A frontend that is connected stays so.
    ///
    /// # Errors
    /// A [`Failure`] for the KMS; then nothing has changed.
    pub(super) fn listen_on(&self, attachment: &str, socket: UnixListener) -> Result<(), Failure> {
        let served = self.lock();
        let session = served
            .iter()
            .find(|session| session.config.attachment == attachment)
            .ok_or_else(|| Failure::new(code::NOT_SERVED, format!("{attachment} is not served")))?;
        session.server.listen_on(socket).map_err(|error| unusable(&error))
    }

    /// Handles on the listening sockets, in the order of [`Sessions::status`]; none at all if one cannot be had.
    pub(super) fn sockets(&self) -> Vec<OwnedFd> {
        let socket = |session: &Served| session.server.listener().map(OwnedFd::from);
        self.lock()
            .iter()
            .map(socket)
            .collect::<Option<_>>()
            .unwrap_or_default()
    }

    /// Stops serving an attachment, after its requests in flight have been completed. Whether it was served.
    ///
    /// # Errors
    /// [`StopError`].
    pub(super) fn remove(
        &self,
        attachment: &str,
        force: bool,
        patience: Duration,
    ) -> Result<bool, StopError> {
        let mut served = self.lock();
        let Some(at) = served
            .iter()
            .position(|session| session.config.attachment == attachment)
        else {
            return Ok(false);
        };
        served[at].server.stop_within(force, patience)?;
        served.remove(at);
        Ok(true)
    }

    /// Stops all, or none.
    ///
    /// # Errors
    /// [`StopError`] if a frontend is connected to any, unless forced.
    pub fn stop(&self, force: bool) -> Result<(), StopError> {
        let mut served = self.lock();
        let servers: Vec<_> = served.iter().map(|session| &session.server).collect();
        Server::stop_all(&servers, force)?;
        served.clear();
        Ok(())
    }

    /// Removes the sockets' paths that were made here.
    pub fn close_paths(&self) {
        for session in self.lock().iter_mut() {
            session.path = None;
        }
    }

    /// Leaves them to a successor.
    pub(super) fn leave_paths(&self) {
        for session in self.lock().iter_mut() {
            if let Some(path) = session.path.take() {
                path.leave();
            }
        }
    }

    /// Each attachment, whether a frontend is connected, and what that has set up.
    pub(super) fn status(&self) -> Vec<SessionStatus> {
        let status = |session: &Served| SessionStatus {
            attachment: session.config.attachment.clone(),
            frontend_connected: session.server.is_connected(),
            detail: Some(session.server.detail()),
        };
        self.lock().iter().map(status).collect()
    }

    /// Whether a frontend is connected to any.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().iter().any(|session| session.server.is_connected())
    }

    /// Tells all frontends that the disk has grown. Returns whether all that are connected could be told.
    pub(super) fn notify_config_change(&self) -> bool {
        let served = self.lock();
        let told = served
            .iter()
            .filter(|session| !session.server.notify_config_change());
        // Of all, not only up to the first that was not.
        !served.is_empty() && told.count() == 0
    }

    /// Brings all to rest, in their order.
    ///
    /// # Errors
    /// [`SuspendError`]; then all serve on.
    pub(super) fn suspend(
        &self,
        patience: Duration,
    ) -> Result<Vec<(SessionConfig, Suspended)>, SuspendError> {
        let deadline = Instant::now() + patience;
        let served = self.lock();
        let mut rest = Vec::with_capacity(served.len());
        for session in served.iter() {
            match session.server.suspend(deadline) {
                Ok(suspended) => rest.push((session.config.clone(), suspended)),
                Err(error) => {
                    resume(&served, rest);
                    return Err(error);
                }
            }
        }
        Ok(rest)
    }

    /// Has all that [were suspended](Sessions::suspend) go on after all.
    pub(super) fn resume(&self, suspended: Vec<(SessionConfig, Suspended)>) {
        resume(&self.lock(), suspended);
    }

    fn context_of(&self, served: &[Served], config: &SessionConfig) -> QueueContext {
        let before = served.iter().map(|session| usize::from(session.config.queues));
        self.context.of_session(config.read_only, before.sum())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resume(served: &[Served], suspended: Vec<(SessionConfig, Suspended)>) {
    // In the same order, and none comes or goes meanwhile: commands are carried out one after another.
    for (session, (_, suspended)) in served.iter().zip(suspended) {
        if let Err(error) = session.server.resume(suspended) {
            log::error!("the queues cannot be served again: {error}");
            logging::abort();
        }
    }
}

/// Whether there can be one more, where so many queues can be served.
fn check(served: &[Served], config: &SessionConfig, most: usize) -> Result<(), Failure> {
    if !(1..=MAX_QUEUES).contains(&config.queues) {
        let text = format!("1 to {MAX_QUEUES} queues can be served");
        return Err(Failure::new("InvalidQueues", text));
    }
    if served.len() >= MAX_SESSIONS {
        let text = format!("at most {MAX_SESSIONS} attachments of a disk can be served");
        return Err(Failure::new(code::TOO_MANY, text));
    }
    let others = served.iter().map(|session| usize::from(session.config.queues));
    let queues = others.sum::<usize>() + usize::from(config.queues);
    if queues > most {
        let text = format!(
            "the disk's process can serve {most} queues: `sealctl backend restart` has one take over that serves more"
        );
        return Err(Failure::new(code::TOO_MANY, text));
    }
    if served
        .iter()
        .any(|session| session.config.attachment == config.attachment)
    {
        let text = format!("{} is served already", config.attachment);
        return Err(Failure::new(code::ALREADY_SERVED, text));
    }
    Ok(())
}

fn unusable(error: &io::Error) -> Failure {
    Failure::new(code::SOCKET_UNUSABLE, with_causes(error))
}
