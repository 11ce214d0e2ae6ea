//! The end of a backend: asked, waited for, forced; and never believed before the store's lock is free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;
use sealblk_proto::message::{Outcome, code};

use super::connection::CommandError;
use super::plan::Plan;
use super::process::Process;
use super::served::{Phase, Served};
use super::shared::Shared;
use super::{attend, states, store_lock};
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::limits;

/// Time between two looks at the store's lock.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a process that has closed its connection may take to end.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// Ends the backend of a disk, whether it is connected or not.
///
/// # Errors
/// [`Code::FrontendConnected`]; [`Code::BackendFailed`] if the backend holds the disk nevertheless, and
/// [`Code::StorageHangs`] if that is because the kernel does not let go of it; [`Code::StoreInUse`] if no backend of ours
/// lives and somebody else holds it.
pub(super) async fn end(
    served: Option<&Arc<Served>>,
    plan: &Plan,
    shared: &Shared,
    force: bool,
) -> Result<()> {
    if let Some(served) = served {
        end_hand_over(served, force).await;
        end_connected(served, shared, force).await?;
    }
    end_unconnected(served, plan, force).await
}

/// Ends the serving of one of several attachments.
///
/// # Errors
/// As [`end`].
pub(super) async fn end_session(
    served: &Arc<Served>,
    plan: &Plan,
    attachment: &str,
    force: bool,
) -> Result<()> {
    end_hand_over(served, force).await;
    let (connection, process) = {
        let inner = served.look();
        (inner.connection.clone(), inner.process.clone())
    };
    let (connection, process) = match (connection, process) {
        (Some(connection), Some(process)) => (connection, process),
        (None, Some(process)) if force => {
            kill(Some(served), process).await?;
            served.sessions.forget(attachment);
            return Ok(());
        }
        _ => {
            // A process that is started later does not serve this attachment.
            end_unconnected(Some(served), plan, force).await?;
            served.sessions.forget(attachment);
            return Ok(());
        }
    };
    let (of, id) = (Arc::clone(served), attachment.to_owned());
    let asked = tokio::task::spawn_blocking(move || attend::take_away(&of, &connection, &id, force)).await;
    let refusal = match asked {
        Ok(Ok(Outcome::Done)) => return Ok(()),
        Ok(Ok(Outcome::Failed(failure))) if failure.code == code::FRONTEND_CONNECTED && !force => {
            return Err(frontend_connected());
        }
        Ok(Ok(Outcome::Failed(failure))) => failure.to_string(),
        Ok(Ok(_)) => "it answered another question".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    // The process may just have died.
    if !process.ended_within(SHORT_WAIT).await {
        if !force {
            return Err(failed(format!(
                "process {} does not let go of the attachment ({refusal}): use --force to have it restarted without",
                process.pid()
            )));
        }
        kill(Some(served), process).await?;
    }
    served.sessions.forget(attachment);
    Ok(())
}

fn frontend_connected() -> Error {
    Error::new(
        Code::FrontendConnected,
        "a virtual machine is connected to the disk: shut it down first, or use --force",
    )
}

/// Waits until nobody is being given the store; no other hand-over begins while the disk is being detached.
pub(super) async fn end_hand_over(served: &Served, force: bool) {
    let patience = if force {
        limits::FORCED_HAND_OVER_TIME
    } else {
        limits::BACKEND_TIME
    };
    let idle = || served.until(|inner| inner.claimant.is_none());
    if tokio::time::timeout(patience, idle()).await.is_ok() || !force {
        return;
    }
    if let Some(claimant) = served.look().claimant.clone() {
        claimant.end();
    }
    let _ = tokio::time::timeout(limits::BACKEND_TIME, idle()).await;
}

async fn end_connected(served: &Arc<Served>, shared: &Shared, force: bool) -> Result<()> {
    let (connection, process) = {
        let inner = served.look();
        (inner.connection.clone(), inner.process.clone())
    };
    let mut closed = None;
    // A process that cannot be told has not begun to end.
    let is_told = connection
        .as_ref()
        .is_some_and(|connection| !connection.is_dead());
    let refusal = match &connection {
        None => None,
        Some(connection) => match connection.detach(force, &mut closed).await {
            Ok(Outcome::Failed(failure)) if failure.code == code::FRONTEND_CONNECTED && !force => {
                return Err(frontend_connected());
            }
            Ok(Outcome::Failed(failure)) => Some(failure.to_string()),
            Ok(Outcome::Done) | Err(CommandError::Closed) => None,
            Ok(_) => Some("it answered another question".to_owned()),
            Err(error) => Some(with_causes(&error)),
        },
    };
    if let Some(closed) = &closed {
        states::close(&served.plan, shared, closed).await;
    }
    let Some(process) = process else { return Ok(()) };
    // A process that says nothing of its end has been waited for.
    let is_ending = closed.is_some() || connection.is_none_or(|connection| connection.is_dead());
    let wait = match &refusal {
        Some(_) => Duration::ZERO,
        None if !is_ending || served.look().phase == Phase::Stuck => Duration::ZERO,
        None if force && !is_told => SHORT_WAIT,
        None => limits::BACKEND_TIME,
    };
    if process.ended_within(wait).await {
        return Ok(());
    }
    if !force {
        let why = refusal.unwrap_or_else(|| "it does not end".to_owned());
        return Err(failed(format!(
            "process {} does not let go of the disk ({why}): use --force to kill it",
            process.pid()
        )));
    }
    kill(Some(served), process).await
}

/// A backend that has lost the KMS and has not come back holds the store's lock all the same.
async fn end_unconnected(served: Option<&Arc<Served>>, plan: &Plan, force: bool) -> Result<()> {
    let held = look(plan).await;
    if held == Some(false) {
        return Ok(());
    }
    let identity = served
        .and_then(|served| served.look().backend.clone())
        .or_else(|| plan.backend.clone());
    match identity.as_ref().and_then(Process::find) {
        Some(process) if force => kill(served, Arc::new(process)).await?,
        Some(process) => {
            return Err(failed(format!(
                "process {} has the disk and is not connected to the KMS: try again, or use --force to kill it",
                process.pid()
            )));
        }
        None if held.is_none() => {
            log::warn!("{}: nobody is known to have its store", plan.service);
            return Ok(());
        }
        None => {}
    }
    // What a killed process has begun goes on for a while, under its lock.
    let deadline = Instant::now() + limits::STORE_RELEASE_TIME;
    while look(plan).await == Some(true) {
        if Instant::now() >= deadline {
            let store = plan.store.path.display();
            let text = format!("a process that the KMS does not know still uses {store}: end it first");
            return Err(Error::new(Code::StoreInUse, text));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Whether the store's lock is held; none if that cannot be told.
async fn look(plan: &Plan) -> Option<bool> {
    let looked = aside::look(&plan.store.path, limits::LOOK_TIME, |store| {
        match store_lock::is_held(store) {
            // Nobody else can lock a file that has lost its name, but the one that has it open goes on.
            Ok(false) if !store.exists() => None,
            Ok(held) => Some(held),
            Err(error) => {
                log::warn!("{}: its lock cannot be looked at: {error}", store.display());
                None
            }
        }
    });
    looked.await.flatten()
}

async fn kill(served: Option<&Arc<Served>>, process: Arc<Process>) -> Result<()> {
    let again = process.kill();
    let patience = if again {
        limits::KILLED_TIME
    } else {
        limits::BACKEND_TIME
    };
    if process.ended_within(patience).await {
        return Ok(());
    }
    if let Some(served) = served {
        served.is_stuck(&process);
    }
    let text = format!(
        "process {} has been killed, and the kernel does not let go of it before its storage answers: the disk is detached \
         then",
        process.pid()
    );
    Err(Error::new(Code::StorageHangs, text))
}

fn failed(text: String) -> Error {
    Error::new(Code::BackendFailed, text)
}
