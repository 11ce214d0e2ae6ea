//! Bringing a process to serve just the attachments that are wanted (rule D09).
//!
//! The first attachment's socket comes with the process's start; the others are added by command, and any can be taken
//! away. A process that has been started, or has come back, is compared with what is wanted, so that it does not matter what
//! was done or not done when one of the two died.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use sealblk_proto::message::{Command, Failure, Outcome, SessionConfig, code};

use super::connection::{CommandError, Connection};
use super::plan::SessionPlan;
use super::served::Served;
use super::sessions::{Sessions, remove_socket};
use super::shared::Shared;
use crate::limits;

/// Has the process serve just the attachments that are wanted. One that cannot be served, as when somebody else has its
/// socket's path, is noted and tried again later; the others are served meanwhile. Waits for the process.
///
/// # Errors
/// [`CommandError`] of the connection.
pub(super) fn reconcile(
    served: &Arc<Served>,
    shared: &Shared,
    connection: &Connection,
) -> Result<(), CommandError> {
    reconcile_once(served, connection)?;
    if served.sessions.has_failed() && !served.sessions.retried.swap(true, Ordering::SeqCst) {
        shared.runtime.spawn(retry(Arc::clone(served)));
    }
    Ok(())
}

fn reconcile_once(served: &Served, connection: &Connection) -> Result<(), CommandError> {
    let sessions = &served.sessions;
    let _alone = sessions
        .reconciling
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (there, sockets) = connection.exchange_for_sockets(Command::Sessions, limits::BACKEND_TIME)?;
    let there: Vec<String> = match there {
        Outcome::Sessions(there) => there.into_iter().map(|session| session.attachment).collect(),
        other => {
            log::error!("{}: asked for its sessions: {other:?}", served.plan.service);
            return Ok(());
        }
    };
    if sockets.len() == there.len() {
        for (attachment, socket) in there.iter().zip(sockets) {
            connection.wait(sessions.take_back(attachment, socket));
        }
    }
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
            false => add(sessions, &plan, connection)?,
        };
        if let Some(failure) = &failure {
            log::error!("{}: it is not served: {failure}", plan.attachment);
        }
        sessions.note(&plan.attachment, failure);
    }
    Ok(())
}

/// Adds one; gives why it is not served.
fn add(
    sessions: &Sessions,
    plan: &SessionPlan,
    connection: &Connection,
) -> Result<Option<Failure>, CommandError> {
    let socket = match connection.wait(sessions.socket(plan)) {
        Ok(socket) => socket,
        Err(error) => return Ok(Some(unusable(&error))),
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
    sessions.drop_socket(&plan.attachment);
    connection.wait(remove_socket(plan));
    Ok(Some(failure))
}

/// The socket cannot be had.
pub(super) fn unusable(error: &io::Error) -> Failure {
    let text = format!("the vhost-user socket cannot be bound: {error}");
    Failure::new(code::SOCKET_UNUSABLE, text)
}

/// Makes the sockets anew whose files have gone or have been replaced, and has the process listen on these. Waits for the
/// process.
///
/// # Errors
/// The first [`Failure`]; the other sockets are made anew.
pub(super) fn renew_sockets(served: &Served, connection: &Connection) -> Result<(), Failure> {
    let sessions = &served.sessions;
    let _alone = sessions
        .reconciling
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut lost = sessions.all();
    lost.retain(|plan| {
        sessions.has_own_socket(&plan.attachment)
            && connection
                .wait(sessions.socket_trouble(&plan.attachment))
                .is_some()
    });
    if lost.is_empty() {
        return Ok(());
    }
    let asked = connection.exchange_for_sockets(Command::Sessions, limits::BACKEND_TIME);
    match asked {
        Ok((_, sockets)) if sockets.is_empty() => {
            let text =
                "the program that is installed is of an earlier version, which cannot change its sockets";
            return Err(Failure::new(code::NOT_SUPPORTED, text));
        }
        Ok(_) => {}
        Err(error) => return Err(Failure::new("BackendFailed", error.to_string())),
    }
    let renewed = lost.iter().map(|plan| renew(sessions, plan, connection));
    renewed.fold(Ok(()), Result::and)
}

fn renew(sessions: &Sessions, plan: &SessionPlan, connection: &Connection) -> Result<(), Failure> {
    let socket = connection
        .wait(sessions.socket(plan))
        .map_err(|error| unusable(&error))?;
    let command = Command::Listen {
        attachment: plan.attachment.clone(),
    };
    let failure = match connection.exchange(command, Some(socket), limits::BACKEND_TIME) {
        Ok(Outcome::Done) => return Ok(()),
        Ok(Outcome::Failed(failure)) => failure,
        Ok(_) => Failure::new("BackendFailed", "it answered another question"),
        Err(error) => Failure::new("BackendFailed", error.to_string()),
    };
    sessions.drop_socket(&plan.attachment);
    connection.wait(remove_socket(plan));
    Err(failure)
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
    let _alone = sessions
        .reconciling
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
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
            let _ = tokio::task::spawn_blocking(move || reconcile_once(&again, &connection)).await;
        }
        sessions.retried.store(false, Ordering::SeqCst);
        // Something may have failed in between.
        if !is_needed() || sessions.retried.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}
