//! The attachments of one served disk (rule D09), and how its process is brought to serve just these.
//!
//! The first attachment's socket comes with the process's start; the others are added by command, and any can be taken
//! away. A process that has been started, or has come back, is compared with what is wanted, so that it does not matter what
//! was done or not done when one of the two died.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealblk_proto::message::{Command, Failure, Outcome, SessionConfig, code};

use super::Shared;
use super::connection::{CommandError, Connection};
use super::plan::SessionPlan;
use super::served::Served;
use super::vhost_socket;
use crate::limits;

/// What is to be served.
#[derive(Debug)]
pub(crate) struct Sessions {
    wanted: Mutex<Vec<Wanted>>,
    /// Held while a process is being brought to serve them.
    bringing: Mutex<()>,
    /// Whether somebody tries again what has failed.
    retried: AtomicBool,
}

#[derive(Debug)]
struct Wanted {
    plan: SessionPlan,
    /// Why it is not served although there is a process.
    failure: Option<Failure>,
}

impl Sessions {
    pub(super) fn new(plans: Vec<SessionPlan>) -> Self {
        let wanted = |plan| Wanted { plan, failure: None };
        Sessions {
            wanted: Mutex::new(plans.into_iter().map(wanted).collect()),
            bringing: Mutex::default(),
            retried: AtomicBool::new(false),
        }
    }

    /// The attachment's, if it is to be served.
    pub(super) fn find(&self, attachment: &str) -> Option<SessionPlan> {
        let wanted = self.look();
        let found = wanted.iter().find(|wanted| wanted.plan.attachment == attachment);
        found.map(|wanted| wanted.plan.clone())
    }

    /// Whether it is to be served.
    pub(super) fn has(&self, attachment: &str) -> bool {
        self.find(attachment).is_some()
    }

    /// All.
    pub(super) fn all(&self) -> Vec<SessionPlan> {
        self.look().iter().map(|wanted| wanted.plan.clone()).collect()
    }

    /// Why an attachment is not served although there is a process.
    pub(super) fn failure(&self, attachment: &str) -> Option<Failure> {
        let wanted = self.look();
        let found = wanted.iter().find(|wanted| wanted.plan.attachment == attachment);
        found.and_then(|wanted| wanted.failure.clone())
    }

    /// One more is to be served.
    pub(super) fn want(&self, plan: SessionPlan) {
        let mut wanted = self.look();
        wanted.retain(|other| other.plan.attachment != plan.attachment);
        wanted.push(Wanted { plan, failure: None });
    }

    /// It is not to be served any more. Of one that a process may serve, see [`take_away`].
    pub(super) fn forget(&self, attachment: &str) {
        self.look().retain(|wanted| wanted.plan.attachment != attachment);
    }

    fn note(&self, attachment: &str, failure: Option<Failure>) {
        let mut wanted = self.look();
        let found = wanted
            .iter_mut()
            .find(|wanted| wanted.plan.attachment == attachment);
        if let Some(wanted) = found {
            wanted.failure = failure;
        }
    }

    fn has_failed(&self) -> bool {
        self.look().iter().any(|wanted| wanted.failure.is_some())
    }

    fn look(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the process serve just the attachments that are wanted. One that cannot be served, as when somebody else has its
/// socket's path, is noted and tried again later; the others are served meanwhile. Waits for the process.
///
/// # Errors
/// [`CommandError`] of the connection.
pub(super) fn bring(
    served: &Arc<Served>,
    shared: &Shared,
    connection: &Connection,
) -> Result<(), CommandError> {
    bring_once(served, connection)?;
    if served.sessions.has_failed() && !served.sessions.retried.swap(true, Ordering::SeqCst) {
        shared.runtime.spawn(retry(Arc::clone(served)));
    }
    Ok(())
}

fn bring_once(served: &Served, connection: &Connection) -> Result<(), CommandError> {
    let sessions = &served.sessions;
    let _alone = sessions.bringing.lock().unwrap_or_else(PoisonError::into_inner);
    let there: Vec<String> = match connection.exchange(Command::Sessions, None, limits::BACKEND_TIME)? {
        Outcome::Sessions(there) => there.into_iter().map(|session| session.attachment).collect(),
        other => {
            log::error!("{}: asked for its sessions: {other:?}", served.plan.service);
            return Ok(());
        }
    };
    for attachment in there.iter().filter(|attachment| !sessions.has(attachment)) {
        // As after the restore of an older catalogue. A machine that uses it keeps it.
        let command = Command::RemoveSession {
            attachment: attachment.clone(),
            force: false,
        };
        let outcome = connection.exchange(command, None, limits::BACKEND_TIME)?;
        log::warn!(
            "{}: it serves {attachment}, which is no attachment: {outcome:?}",
            served.plan.service
        );
    }
    for plan in sessions.all() {
        let failure = match there.contains(&plan.attachment) {
            true => None,
            false => add(&plan, connection)?,
        };
        if let Some(failure) = &failure {
            log::error!("{}: it is not served: {failure}", plan.attachment);
        }
        sessions.note(&plan.attachment, failure);
    }
    Ok(())
}

/// Adds one; gives why it is not served.
fn add(plan: &SessionPlan, connection: &Connection) -> Result<Option<Failure>, CommandError> {
    let socket = match vhost_socket::bind(&plan.socket, plan.access) {
        Ok(socket) => OwnedFd::from(socket),
        Err(error) => {
            let text = format!("the vhost-user socket cannot be bound: {error}");
            return Ok(Some(Failure::new(code::SOCKET_UNUSABLE, text)));
        }
    };
    let command = Command::AddSession(SessionConfig {
        attachment: plan.attachment.clone(),
        queues: plan.queues,
        read_only: plan.read_only,
    });
    let failure = match connection.exchange(command, Some(socket), limits::BACKEND_TIME)? {
        Outcome::Done => return Ok(None),
        Outcome::Failed(failure) => failure,
        _ => Failure::new("BackendFailed", "it answered another question"),
    };
    vhost_socket::remove_stale(&plan.socket);
    Ok(Some(failure))
}

/// Has the process not serve an attachment any more; then it is not wanted either. Waits for the process.
///
/// # Errors
/// [`CommandError`] of the connection.
pub(super) fn take_away(
    served: &Served,
    connection: &Connection,
    attachment: &str,
    force: bool,
) -> Result<Outcome, CommandError> {
    let sessions = &served.sessions;
    let _alone = sessions.bringing.lock().unwrap_or_else(PoisonError::into_inner);
    let command = Command::RemoveSession {
        attachment: attachment.to_owned(),
        force,
    };
    let outcome = connection.exchange(command, None, limits::BACKEND_TIME)?;
    if outcome == Outcome::Done {
        sessions.forget(attachment);
    }
    Ok(outcome)
}

/// Tries again what has failed, until it has not.
async fn retry(served: Arc<Served>) {
    let sessions = &served.sessions;
    let is_needed = || sessions.has_failed() && !served.look().removed;
    let mut delay = limits::RETRY_DELAY_FIRST;
    loop {
        while is_needed() {
            tokio::time::sleep(delay).await;
            delay = (2 * delay).min(limits::RETRY_DELAY_MOST);
            let connection = served.look().connection.clone();
            let Some(connection) = connection else { continue };
            let again = Arc::clone(&served);
            // An error ends the connection, and another process is compared anew.
            let _ = tokio::task::spawn_blocking(move || bring_once(&again, &connection)).await;
        }
        sessions.retried.store(false, Ordering::SeqCst);
        // Something may have failed in between.
        if !is_needed() || sessions.retried.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}
