//! Changes of several stores as of one moment: no request of a guest's is begun between the first and the last.

use sealblk_proto::message::{Change, Command, Outcome};
use tokio::task::JoinSet;

use super::commands::{examined, not_done, service_of, strange};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::backends::hold::{Hold, Holder};
use crate::host::backends::{CommandError, VolumeLock};
use crate::limits;

/// A change of the store of an attached disk.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) volume: String,
    /// The disk's, for errors.
    pub(crate) name: String,
    /// Id of the operation.
    pub(crate) operation: String,
    pub(crate) change: Change,
}

/// Why not all changes were made.
#[derive(Debug)]
pub(crate) struct Unmade {
    /// Of the first disk that has failed, which is named.
    pub(crate) error: Error,
    /// Any of the changes may have been made; else none was asked for.
    pub(crate) begun: bool,
}

impl Unmade {
    fn begun(error: Error) -> Self {
        Unmade { error, begun: true }
    }
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Unmade { error, begun: false }
    }
}

/// Makes the changes. All stores come to rest first, then each is changed, then all go on. A store that is no longer at rest when it
/// has been changed counts as one that was not.
///
/// # Errors
/// [`Unmade`].
pub(crate) async fn change(kms: &Kms, mut wanted: Vec<Wanted>) -> std::result::Result<(), Unmade> {
    // Two who want several locks take them in one order.
    wanted.sort_by(|one, other| one.volume.cmp(&other.volume));
    let mut locks: Vec<VolumeLock> = Vec::with_capacity(wanted.len());
    let mut holders: Vec<Holder> = Vec::with_capacity(wanted.len());
    for wanted in &wanted {
        let named = |error| failed(wanted, error);
        let lock = kms.supervisor.lock_soon(&wanted.volume).await;
        locks.push(lock.ok_or_else(|| named(examined(&wanted.volume)))?);
        let service = service_of(kms, &wanted.volume).await?;
        let service = service.ok_or_else(|| {
            let text = "it is attached no more: try again";
            named(Error::new(Code::DiskNotAvailable, text))
        })?;
        holders.push(kms.supervisor.holder(&service.id).await.map_err(named)?);
    }
    let made = make(&wanted, &holders).await;
    resume(holders).await;
    made
}

async fn make(wanted: &[Wanted], holders: &[Holder]) -> std::result::Result<(), Unmade> {
    let rest = wanted.iter().zip(holders).map(|(wanted, holder)| {
        let (wanted, holder) = (wanted.clone(), holder.clone());
        async move {
            let held = hold(holder).await.map_err(|error| failed(&wanted, error))?;
            Ok((wanted, held))
        }
    });
    let held = all(rest).await?;
    let changes = held.into_iter().map(|(wanted, hold)| async move {
        let made = change_one(&wanted, &hold).await;
        made.map_err(|error| failed(&wanted, error))
    });
    all(changes).await.map(drop).map_err(Unmade::begun)
}

async fn hold(holder: Holder) -> Result<Hold> {
    let held = holder
        .hold(limits::GROUP_HOLD_TIME, limits::GROUP_REST_TIME)
        .await;
    match held.map_err(not_answered)? {
        (Outcome::Done, hold) => Ok(hold),
        (Outcome::Failed(failure), _) => Err(not_done(&failure)),
        _ => Err(strange()),
    }
}

async fn change_one(wanted: &Wanted, hold: &Hold) -> Result<()> {
    let command = Command::Change {
        operation: wanted.operation.clone(),
        change: wanted.change.clone(),
    };
    match hold.request(command).await.map_err(not_answered)? {
        Some(Outcome::Done) => Ok(()),
        Some(Outcome::Failed(failure)) => Err(not_done(&failure)),
        Some(_) => Err(strange()),
        None => {
            let text = "its store took longer than guests can be held: try again when it has less to do";
            Err(Error::new(Code::BackendFailed, text))
        }
    }
}

/// All go on at once; one that does not answer does so when its time is over.
async fn resume(holders: Vec<Holder>) {
    let resumed = holders
        .into_iter()
        .map(|holder| async move { holder.resume().await });
    let mut tasks: JoinSet<_> = resumed.collect();
    while let Some(resumed) = tasks.join_next().await {
        if let Ok(Err(error)) = resumed {
            log::warn!("guests' requests go on when the hold is over: {error}");
        }
    }
}

/// What comes of all, in their order, each of which is awaited; the first failure if there is one.
async fn all<T: Send + 'static>(
    works: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let mut tasks: JoinSet<_> = works
        .enumerate()
        .map(|(index, work)| async move { (index, work.await) })
        .collect();
    let mut ended = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        ended.push(done.map_err(|error| Error::because(Code::Internal, "a task was not ended", error))?);
    }
    ended.sort_by_key(|(index, _)| *index);
    ended.into_iter().map(|(_, done)| done).collect()
}

fn not_answered(error: CommandError) -> Error {
    Error::because(Code::BackendFailed, "the store's process failed", error)
}

fn failed(wanted: &Wanted, error: Error) -> Error {
    Error::because(error.code(), format!("disk {}", wanted.name), error)
}
