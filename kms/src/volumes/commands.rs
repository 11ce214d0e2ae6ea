//! The way to a layered store: by the backend that serves its disk, or by a process that is started for this. Both obey
//! the same commands; the KMS itself never opens a store's contents.

use std::time::Duration;

use sealblk_proto::message::{Change, CheckReport, Command, Failure, Mode, Outcome, StoreReport, code};

use crate::catalogue::meta;
use crate::catalogue::services::{self, ServiceRow};
use crate::catalogue::volumes::{self, VolumeRow};
use crate::context::{Kms, plans};
use crate::error::{Code, Error, Result};
use crate::host::backends::maintenance::Maintenance;
use crate::host::backends::{CommandError, Plan, VolumeLock, code_of};
use crate::id::{self, Kind};
use crate::limits;

/// Why a change is not known to be made.
#[derive(Debug)]
pub(crate) enum Unmade {
    /// The store has not made the change.
    Not(Error),
    /// Nobody can tell now. The store has to be asked again, by [`was_made`].
    Unknown(Error),
}

impl Unmade {
    /// The error, whichever it is.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Unmade::Not(error) | Unmade::Unknown(error) => error,
        }
    }
}

/// The error of a call of which nobody knows yet what has come of it.
pub(crate) fn unknown(error: Error) -> Error {
    Error::because(
        Code::BackendFailed,
        "whether it was done is not known yet; the KMS finds out by itself, so look again later",
        error,
    )
}

/// What was answered, or why nothing was.
type Answered = std::result::Result<Outcome, CommandError>;

enum Way<'a> {
    /// The disk's backend, by its service.
    Serving(&'a Kms, String),
    /// A process of its own.
    Maintained(Maintenance<'a>),
}

/// Access to one store, until it is closed.
struct Access<'a> {
    way: Way<'a>,
    /// The volume's lock; none once it was given back.
    lock: Option<VolumeLock>,
}

impl<'a> Access<'a> {
    /// Waits for the lock and finds the way.
    ///
    /// # Errors
    /// [`Code::DiskNotAvailable`] while the store is examined; the catalogue's; why no process can be started.
    async fn open(kms: &'a Kms, volume: &str) -> Result<Self> {
        let lock = kms.supervisor.lock_soon(volume).await;
        let lock = lock.ok_or_else(|| examined(volume))?;
        let way = match service_of(kms, volume).await? {
            Some(service) => Way::Serving(kms, service.id),
            None => {
                let plan = plan(kms, volume, Mode::Maintain).await?;
                Way::Maintained(kms.supervisor.maintain(plan).await?)
            }
        };
        Ok(Access {
            way,
            lock: Some(lock),
        })
    }

    async fn request(&self, command: Command, time: Duration) -> Result<Answered> {
        match &self.way {
            Way::Serving(kms, service) => kms.supervisor.request(service, command, time).await,
            Way::Maintained(maintenance) => Ok(maintenance.request(command, time).await),
        }
    }

    /// To look at what the store holds: a process that serves a disk does so beside all else, so that no lock is kept, nor
    /// needed while the store is examined.
    async fn to_look(kms: &'a Kms, volume: &str) -> Result<Self> {
        match Access::open(kms, volume).await {
            Ok(mut access) => {
                if let Way::Serving(..) = access.way {
                    access.lock = None;
                }
                Ok(access)
            }
            Err(error) if error.code() == Code::DiskNotAvailable => {
                let service = service_of(kms, volume).await?.ok_or(error)?;
                Ok(Access {
                    way: Way::Serving(kms, service.id),
                    lock: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn close(self) {
        if let Way::Maintained(maintenance) = self.way {
            maintenance.end().await;
        }
    }
}

pub(super) async fn service_of(kms: &Kms, volume: &str) -> Result<Option<ServiceRow>> {
    let mut db = kms.catalogue.read().await?;
    Ok(services::of_disk(&mut db, volume).await?)
}

pub(super) fn examined(volume: &str) -> Error {
    let text = format!("disk.check is under way on {volume}: try again when it has ended");
    Error::new(Code::DiskNotAvailable, text)
}

/// The plan of a process on a volume that nobody serves.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn plan(kms: &Kms, volume: &str, mode: Mode) -> Result<Plan> {
    let (row, bases) = {
        let mut db = kms.catalogue.read().await?;
        let row = volumes::get(&mut db, volume).await?;
        (row, volumes::bases(&mut db, volume).await?)
    };
    plan_of(kms, &row, &bases, mode).await
}

/// The plan of a process on a volume that nobody serves, of rows that need not be in the catalogue.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn plan_of(kms: &Kms, row: &VolumeRow, bases: &[VolumeRow], mode: Mode) -> Result<Plan> {
    let serial = {
        let mut tx = kms.catalogue.write().await?;
        let serial = meta::next_serial(&mut tx).await?;
        tx.commit().await?;
        serial
    };
    let name = (id::new(Kind::Maintenance)?, serial);
    Ok(plans::maintenance(&kms.state, row, bases, mode, name))
}

/// Sends one command.
async fn ask(kms: &Kms, volume: &str, command: Command, time: Duration) -> Result<Answered> {
    let access = Access::open(kms, volume).await?;
    let answered = access.request(command, time).await;
    access.close().await;
    answered
}

/// Makes the store of a new volume in its empty file, durably.
///
/// # Errors
/// The backend's.
pub(crate) async fn create(kms: &Kms, row: &VolumeRow) -> Result<()> {
    let _lock = kms.supervisor.lock(&row.id).await;
    let mode = Mode::Create {
        lineage: row.lineage.clone(),
        snapshot: row.base.clone(),
    };
    let plan = plan(kms, &row.id, mode).await?;
    kms.supervisor.maintain(plan).await?.end().await;
    Ok(())
}

/// Changes a store, durably. The same operation is never carried out twice.
///
/// # Errors
/// [`Unmade`].
pub(crate) async fn change(
    kms: &Kms,
    volume: &str,
    operation: &str,
    change: Change,
) -> std::result::Result<(), Unmade> {
    let command = Command::Change {
        operation: operation.to_owned(),
        change,
    };
    // What fails here, fails before anything is sent.
    let answered = ask(kms, volume, command, limits::BACKEND_TIME)
        .await
        .map_err(Unmade::Not)?;
    let failed = match answered {
        Ok(Outcome::Done) => return Ok(()),
        Ok(Outcome::Failed(failure)) => return Err(Unmade::Not(not_done(&failure))),
        Ok(_) => Error::new(
            Code::BackendFailed,
            "the serving process answered another question",
        ),
        Err(error) => Error::because(Code::BackendFailed, "the store's process failed", error),
    };
    match was_made(kms, volume, operation).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unmade::Not(failed)),
        Err(error) => {
            log::warn!("{operation} on {volume}: {}", failed.full_message());
            Err(Unmade::Unknown(error))
        }
    }
}

/// Whether a store has made the change of an operation.
///
/// # Errors
/// Why it cannot be asked.
pub(crate) async fn was_made(kms: &Kms, volume: &str, operation: &str) -> Result<bool> {
    let command = Command::WasMade {
        operation: operation.to_owned(),
    };
    match answer(ask(kms, volume, command, limits::BACKEND_TIME).await?)? {
        Outcome::Made(made) => Ok(made),
        _ => Err(strange()),
    }
}

/// Keeps a snapshot for a clone.
///
/// # Errors
/// [`Unmade`].
pub(crate) async fn pin(
    kms: &Kms,
    volume: &str,
    operation: &str,
    snapshot: &str,
    clone: &str,
) -> std::result::Result<(), Unmade> {
    let wanted = Change::Pin {
        snapshot: snapshot.to_owned(),
        disk: clone.to_owned(),
    };
    change(kms, volume, operation, wanted).await
}

/// Lets go of a snapshot that was kept for a clone. Can be repeated.
///
/// # Errors
/// The backend's.
pub(crate) async fn unpin(kms: &Kms, volume: &str, snapshot: &str, clone: &str) -> Result<()> {
    // An operation of its own: under the id of the one that is undone, the store would think that it has been made.
    let operation = id::new(Kind::Intent)?;
    let wanted = Change::Unpin {
        snapshot: snapshot.to_owned(),
        disk: clone.to_owned(),
    };
    match change(kms, volume, &operation, wanted).await {
        Ok(()) => Ok(()),
        Err(Unmade::Not(error)) if error.code() == Code::SnapshotMissing => Ok(()),
        Err(unmade) => Err(unmade.into_error()),
    }
}

/// What a store holds: its snapshots, with sizes and pins, and its room.
///
/// # Errors
/// Why it cannot be asked.
pub(crate) async fn report(kms: &Kms, volume: &str) -> Result<StoreReport> {
    let access = Access::to_look(kms, volume).await?;
    let report = read_report(&access).await;
    access.close().await;
    report
}

async fn read_report(access: &Access<'_>) -> Result<StoreReport> {
    let mut whole = read_page(access, None).await?;
    for _ in 1..limits::REPORT_PAGES {
        if !whole.more {
            return Ok(whole);
        }
        let after = whole.snapshots.last().map(|snapshot| snapshot.id.clone());
        let page = read_page(access, after).await?;
        whole.more = page.more;
        whole.snapshots.extend(page.snapshots);
    }
    Err(strange())
}

async fn read_page(access: &Access<'_>, after: Option<String>) -> Result<StoreReport> {
    let command = Command::Store { after };
    match answer(access.request(command, limits::BACKEND_TIME).await?)? {
        Outcome::Store(report) => Ok(report),
        _ => Err(strange()),
    }
}

/// Examines a store.
///
/// # Errors
/// Why it cannot be examined. Findings are none.
pub(crate) async fn check(kms: &Kms, volume: &str, repair: bool) -> Result<CheckReport> {
    let access = Access::open(kms, volume).await?;
    if let Some(lock) = &access.lock {
        lock.is_long();
    }
    let checked = access
        .request(Command::Check { repair }, limits::CHECK_TIME)
        .await;
    access.close().await;
    match answer(checked?)? {
        Outcome::Check(report) => Ok(report),
        _ => Err(strange()),
    }
}

fn answer(answered: Answered) -> Result<Outcome> {
    match answered {
        Ok(Outcome::Failed(failure)) => Err(not_done(&failure)),
        Ok(outcome) => Ok(outcome),
        Err(error) => Err(Error::because(
            Code::BackendFailed,
            "the store's process failed",
            error,
        )),
    }
}

pub(super) fn not_done(failure: &Failure) -> Error {
    let text = match failure.code.as_str() {
        code::FRONTEND_CONNECTED => {
            "a virtual machine is connected to the disk: shut it down first, or use --force".to_owned()
        }
        _ => format!("the store cannot do it: {}", failure.message),
    };
    Error::new(code_of(failure), text)
}

pub(super) fn strange() -> Error {
    Error::new(
        Code::BackendFailed,
        "the store's process does not answer as it should",
    )
}
