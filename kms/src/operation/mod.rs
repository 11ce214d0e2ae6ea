//! What can be asked of the daemon, one file a call: parsed and applied in the same place.
//!
//! A call that changes something is decided in one transaction, together with its intent, its charge and its audit
//! record, before anything is done. Then it acts, and then it commits, or undoes and refunds. What a crash leaves
//! open, [`recovery`] ends at the next start.

pub(crate) mod account_credit;
pub(crate) mod account_show;
pub(crate) mod attach;
pub(crate) mod attachment_show;
pub(crate) mod audit_archive;
pub(crate) mod audit_verify;
pub(crate) mod backend_restart;
pub(crate) mod backend_start;
pub(crate) mod backup_create;
pub(crate) mod backup_delete;
pub(crate) mod backup_restore;
pub(crate) mod backup_show;
mod charge;
pub(crate) mod chosen_file;
mod compare;
pub(crate) mod copying;
pub(crate) mod detach;
mod disk_change;
pub(crate) mod disk_check;
pub(crate) mod disk_copy;
pub(crate) mod disk_create;
pub(crate) mod disk_delete;
pub(crate) mod disk_export;
pub(crate) mod disk_import;
mod disk_kind;
mod disk_path;
pub(crate) mod disk_reinit;
pub(crate) mod disk_resize;
pub(crate) mod disk_set;
pub(crate) mod disk_show;
mod disk_source;
mod foreign_format;
mod fresh_copy;
pub(crate) mod housekeeping;
pub(crate) mod image_copy;
pub(crate) mod image_create;
pub(crate) mod image_delete;
pub(crate) mod image_export;
pub(crate) mod image_import;
mod image_made;
pub(crate) mod image_set;
pub(crate) mod image_share;
pub(crate) mod image_show;
pub(crate) mod import_file;
mod instance_disks;
pub(crate) mod instance_register;
pub(crate) mod instance_remove;
pub(crate) mod instance_set;
pub(crate) mod instance_show;
mod key_change;
pub(crate) mod key_create;
pub(crate) mod key_deletion;
pub(crate) mod key_enable;
mod key_fee;
pub(crate) mod key_import;
pub(crate) mod key_jobs;
pub(crate) mod key_resources;
pub(crate) mod key_rewrap;
pub(crate) mod key_rotate;
pub(crate) mod key_set;
pub(crate) mod key_show;
pub(crate) mod kms_activate;
mod kms_gate;
pub(crate) mod kms_grant;
pub(crate) mod kms_status;
mod machine_check;
pub(crate) mod matching;
mod on_full;
pub(crate) mod once;
mod profile_show;
mod qemu_form;
mod reclaim;
pub(crate) mod recovery;
pub(crate) mod rollback;
pub(crate) mod root_rotate;
pub(crate) mod snapshot_copy;
pub(crate) mod snapshot_create;
pub(crate) mod snapshot_delete;
pub(crate) mod snapshot_set;
pub(crate) mod snapshot_show;
pub(crate) mod socket_choice;
mod state_files;
mod store_access;
mod store_report;
mod system_disk;
pub(crate) mod usage_show;

use std::sync::Arc;

use sealblk_api::calls;
use sqlx::SqliteConnection;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use crate::audit::{self, Caller, Decision};
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::meta::Meta;
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::{Catalogue, Write, copies};
use crate::clock;
use crate::conditions::Conditions;
use crate::custody::Custody;
use crate::error::{Code, Error, Result};
use crate::host_path::HostPaths;
use crate::id::{self, Kind};
use crate::imports::Imports;
use crate::limits;
use crate::profile::Profile;
use crate::rootkey::RootKeyProvider;
use crate::state::StateDir;
use crate::strangers::Strangers;
use crate::supervisor::Supervisor;
use crate::timekeeper::Timekeeper;

/// The daemon's parts.
pub(crate) struct Kms {
    pub(crate) state: StateDir,
    pub(crate) catalogue: Catalogue,
    pub(crate) custody: Custody,
    pub(crate) meta: Meta,
    pub(crate) profile: &'static Profile,
    pub(crate) supervisor: Supervisor,
    pub(crate) paths: HostPaths,
    pub(crate) leftovers: Arc<recovery::Leftovers>,
    /// Longest wait before a key is destroyed, in days (rule K11).
    pub(crate) deletion_days_most: u16,
    /// Processes are to serve with all of their sandbox or not at all.
    pub(crate) require_sandbox: bool,
    pub(crate) imports: Imports,
    pub(crate) conditions: Arc<Conditions>,
    pub(crate) clock: Timekeeper,
    pub(crate) root_provider: Arc<dyn RootKeyProvider>,
    root_file: state_files::RootFile,
    /// Held while the root key is being rotated.
    pub(crate) rotating_root: Arc<tokio::sync::Mutex<()>>,
    /// Told when keys need work in the background.
    pub(crate) key_work: Arc<Notify>,
    pub(crate) copies: copying::Copies,
    reports: store_report::Reports,
    /// Held while volumes that nothing needs are removed.
    sweeping: tokio::sync::Mutex<()>,
    /// Those who wait for the audit log to be recomputed.
    passes: audit_verify::Passes,
    /// Refused calls that are to be recorded.
    pub(crate) strangers: Strangers,
    /// Read by operations that run; written once, when the daemon ends.
    ending: RwLock<bool>,
}

/// A call that changes something.
pub(crate) trait Operation: Send + Sync + 'static {
    /// Its name in the audit log.
    const CALL: &'static str;
    /// Whether it frees room, or does without: then it may take of what is kept for a full file system.
    const FREES: bool = false;
    /// What was decided.
    type Decided: Send;
    /// What the caller gets.
    type Answer: Send + 'static;

    /// Id or name of what it is about, for the audit log.
    fn object(&self) -> &str;

    /// Looks at the file system and at other processes as far as [`Operation::decide`] must know them: before the
    /// transaction, which a hung mount would otherwise hold, and with it all calls.
    fn prepare(&mut self, _: &Kms, _: &Caller) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Checks all rules, and writes what was decided into the transaction and nowhere else.
    fn decide(
        &self,
        kms: &Kms,
        caller: &Caller,
        tx: &mut Write,
    ) -> impl Future<Output = Result<Self::Decided>> + Send;

    /// Does it, and commits or undoes.
    fn act(
        &self,
        kms: &Kms,
        caller: &Caller,
        decided: Self::Decided,
    ) -> impl Future<Output = Result<Self::Answer>> + Send;
}

/// What a start has found and opened.
pub(crate) struct Opened {
    pub(crate) state: StateDir,
    pub(crate) catalogue: Catalogue,
    pub(crate) custody: Custody,
    pub(crate) root_provider: Arc<dyn RootKeyProvider>,
    pub(crate) meta: Meta,
    pub(crate) profile: &'static Profile,
    pub(crate) supervisor: Supervisor,
    pub(crate) clock: Timekeeper,
}

impl Kms {
    pub(crate) fn new(opened: Opened) -> Self {
        Kms {
            paths: HostPaths::new(&opened.state, None),
            state: opened.state,
            catalogue: opened.catalogue,
            custody: opened.custody,
            meta: opened.meta,
            profile: opened.profile,
            supervisor: opened.supervisor,
            leftovers: Arc::default(),
            deletion_days_most: limits::DELETION_DAYS_MOST,
            require_sandbox: false,
            imports: Imports::default(),
            conditions: Arc::default(),
            clock: opened.clock,
            root_file: state_files::RootFile::loaded(&*opened.root_provider),
            root_provider: opened.root_provider,
            rotating_root: Arc::default(),
            key_work: Arc::default(),
            copies: copying::Copies::default(),
            reports: store_report::Reports::default(),
            sweeping: tokio::sync::Mutex::default(),
            passes: audit_verify::Passes::default(),
            strangers: Strangers::default(),
            ending: RwLock::new(false),
        }
    }

    /// Waits for the operations that run; no other begins.
    pub(crate) async fn end(&self) {
        *self.ending.write().await = true;
    }

    async fn begin(&self) -> Result<RwLockReadGuard<'_, bool>> {
        let ending = self.ending.read().await;
        if *ending {
            return Err(Error::new(
                Code::ShuttingDown,
                "the daemon is ending: try again when it is back",
            ));
        }
        Ok(ending)
    }

    /// Decides, and commits the decision with its audit record; a refusal is recorded too.
    pub(crate) async fn decide<O: Operation>(&self, caller: &Caller, operation: &O) -> Result<O::Decided> {
        if let Err(error) = state_files::check_root(self).await {
            self.record_refusal(caller, O::CALL, operation.object(), &error)
                .await?;
            return Err(error);
        }
        let mut tx = state_files::begin(self).await?;
        let decided = match operation.decide(self, caller, &mut tx).await {
            Ok(decided) => decided,
            Err(error) => {
                // The refusal is recorded and answered even so: the catalogue discards such a connection.
                if let Err(rollback) = tx.rollback().await {
                    log::warn!(
                        "{} was refused ({error}), and its rollback failed: {rollback}",
                        O::CALL
                    );
                }
                self.record_refusal(caller, O::CALL, operation.object(), &error)
                    .await?;
                return Err(error);
            }
        };
        audit::append(&mut tx, caller, O::CALL, operation.object(), Decision::Allowed).await?;
        tx.commit().await?;
        Ok(decided)
    }

    /// Writes an audit record of its own.
    pub(crate) async fn record(
        &self,
        caller: &Caller,
        call: &str,
        object: &str,
        decision: Decision<'_>,
    ) -> Result<()> {
        let lost = |error| Error::because(Code::AuditFailed, "the audit log cannot be written", error);
        let mut tx = self.catalogue.write().await.map_err(lost)?;
        audit::append(&mut tx, caller, call, object, decision).await?;
        tx.commit().await.map_err(lost)
    }

    /// Refuses what would take of the room that is kept for what frees room. That is not recorded, since it would take of it, too.
    async fn check_reserve(&self) -> Result<()> {
        if self.catalogue.reserve_left() >= limits::RESERVE_FOR_FREEING {
            return Ok(());
        }
        // There may be room again.
        self.catalogue.tend_reserve().await;
        let left = self.catalogue.reserve_left();
        if left >= limits::RESERVE_FOR_FREEING {
            return Ok(());
        }
        let text = format!(
            "the state directory's file system is full, and of what the catalogue keeps for that {left} % are left: only what \
             frees room is done; delete disks, snapshots or backups, or make room otherwise"
        );
        Err(Error::new(Code::NoSpace, text))
    }

    /// Records a refusal, and the alarm that it raises.
    pub(crate) async fn record_refusal(
        &self,
        caller: &Caller,
        call: &str,
        object: &str,
        error: &Error,
    ) -> Result<()> {
        if self.catalogue.reserve_left() < limits::RESERVE_FOR_RESTARTS {
            log::warn!(
                "{call} of {object} was refused to uid {}, which is not in the audit log, for want of room: {error}",
                caller.uid
            );
            return Ok(());
        }
        let lost = |error| Error::because(Code::AuditFailed, "the audit log cannot be written", error);
        let mut tx = self.catalogue.write().await.map_err(lost)?;
        audit::append(&mut tx, caller, call, object, Decision::Refused(error)).await?;
        if let Some(key) = error.alarm() {
            audit::alarm(&mut tx, caller, key, &format!("{call} of {object} asked for it")).await?;
        }
        tx.commit().await.map_err(lost)
    }

    /// This process, acting on its own for an account.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub(crate) fn own_caller(&self, account: &str) -> Result<Caller> {
        Ok(Caller {
            account: account.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id().cast_signed(),
            request: id::new(Kind::Request)?,
        })
    }

    /// Records why a decided operation was not fulfilled, in the transaction that undoes it.
    pub(crate) async fn record_undone(
        &self,
        tx: &mut Write,
        intent: &IntentRow,
        error: &Error,
    ) -> Result<()> {
        let caller = Caller {
            account: intent.account.clone(),
            uid: intent.uid,
            pid: intent.pid,
            request: intent.request.clone(),
        };
        let object = match intent.call.as_str() {
            "attach" => intent.attachment.as_ref(),
            "snapshot.create" | "snapshot.delete" => intent.snapshot.as_ref(),
            _ => None,
        };
        let object = object.unwrap_or(&intent.disk);
        let decision = match error.code() {
            // The backend's part of the decision: nothing was done.
            Code::FrontendConnected => Decision::Refused(error),
            _ => Decision::Failed(error),
        };
        audit::append(tx, &caller, &intent.call, object, decision).await
    }

    /// Opens an intent and charges it if it is metered (rules M01 and M02).
    ///
    /// # Errors
    /// [`Code::DiskNotAvailable`] while another operation on the volume is under way; [`Code::BalanceExhausted`].
    pub(crate) async fn open_intent(
        &self,
        tx: &mut Write,
        caller: &Caller,
        call: &str,
        subject: Subject<'_>,
    ) -> Result<IntentRow> {
        match subject.by_force {
            true => check_endable(tx, subject.volume).await?,
            false => check_idle(tx, subject.volume).await?,
        }
        let created = clock::now();
        let month = self.clock.month();
        let metered = metered(self.profile, call).filter(|_| subject.encrypted);
        let charged = match metered {
            Some(_) => charge::take(self, tx, &caller.account, &month).await?,
            None => 0,
        };
        let intent = IntentRow {
            id: id::new(Kind::Intent)?,
            account: caller.account.clone(),
            call: call.to_owned(),
            disk: subject.volume.to_owned(),
            attachment: subject.attachment.map(str::to_owned),
            snapshot: subject.snapshot.map(str::to_owned),
            size: subject.size,
            uid: caller.uid,
            pid: caller.pid,
            request: caller.request.clone(),
            made_key: subject.made_key,
            metered: metered.map(str::to_owned),
            month,
            created,
            charged,
        };
        intents::open(tx, &self.meta.region, &intent).await?;
        Ok(intent)
    }
}

/// What an intent is about.
#[derive(Debug, Default)]
pub(crate) struct Subject<'a> {
    /// The disk, or the volume whose disk has been deleted.
    pub(crate) volume: &'a str,
    /// Only calls on encrypted disks are metered.
    pub(crate) encrypted: bool,
    pub(crate) attachment: Option<&'a str>,
    pub(crate) snapshot: Option<&'a str>,
    /// The size asked for, in bytes.
    pub(crate) size: Option<i64>,
    /// The service key, if the call has made it.
    pub(crate) made_key: Option<String>,
    /// The volume's process is ended, and with it whatever that has been asked to do.
    pub(crate) by_force: bool,
}

impl<'a> Subject<'a> {
    /// A disk and nothing else.
    pub(crate) fn disk(disk: &'a DiskRow) -> Self {
        Subject {
            volume: &disk.id,
            encrypted: disk.encrypted,
            ..Subject::default()
        }
    }
}

/// Rule M01: the kind of KMS call that this is, if it is one.
fn metered(profile: &Profile, call: &str) -> Option<&'static str> {
    calls::meter(call).filter(|meter| *meter != "reinit" || profile.meter_reinit)
}

/// Rule D05: one operation at a time.
async fn check_idle(tx: &mut Write, volume: &str) -> Result<()> {
    if let Some(copy) = copies::on_volume(tx, volume).await? {
        let text = format!(
            "{} is under way on {volume}: try again when it has ended, or cancel it with `sealctl disk copy --cancel`",
            copy.call
        );
        return Err(Error::new(Code::DiskNotAvailable, text));
    }
    match intents::on_volume(tx, volume).await? {
        None => Ok(()),
        Some(call) => Err(under_way(&call, volume)),
    }
}

/// Whether nothing is under way on a volume but what its process does, and what is settled without it.
async fn check_endable(tx: &mut Write, volume: &str) -> Result<()> {
    let calls = intents::all_on_volume(tx, volume).await?;
    let stays = calls.iter().find(|call| {
        !matches!(
            call.as_str(),
            "snapshot.create" | "snapshot.delete" | "rollback" | "disk.reinit" | "disk.resize" | "disk.check"
        )
    });
    match stays {
        None => Ok(()),
        Some(call) => Err(under_way(call, volume)),
    }
}

fn under_way(call: &str, volume: &str) -> Error {
    let text = format!("{call} is under way on {volume}: try again when it has ended");
    Error::new(Code::DiskNotAvailable, text)
}

/// Rule D05: its state does not permit the call.
fn not_available(kind: &str, name: &str, state: &str) -> Error {
    let text = format!("{kind} {name} is {state}: wait until it is available");
    Error::new(Code::DiskNotAvailable, text)
}

/// Rule D05: whether something can be done with the disk now that needs its store, which must be layered.
///
/// # Errors
/// [`Code::NotSupported`]; [`Code::DiskNotAvailable`].
async fn check_workable(tx: &mut Write, disk: &DiskRow, what: &str) -> Result<()> {
    if disk.store != "layered" {
        let text = format!(
            "disk {} has a {} store, which has no {what}: create a disk with --store layered",
            disk.name, disk.store
        );
        return Err(Error::new(Code::NotSupported, text));
    }
    check_idle(tx, &disk.id).await?;
    if disk.state != "available" && disk.state != "in-use" {
        let text = format!(
            "disk {} is {}: wait until it is available or in use",
            disk.name, disk.state
        );
        return Err(Error::new(Code::DiskNotAvailable, text));
    }
    Ok(())
}

/// Runs a call to its end, even if the caller hangs up.
///
/// # Errors
/// The call's.
pub(crate) async fn run<O: Operation>(kms: &Arc<Kms>, caller: Caller, mut operation: O) -> Result<O::Answer> {
    let kms = Arc::clone(kms);
    let task = tokio::spawn(async move {
        let _running = kms.begin().await?;
        if !O::FREES {
            kms.check_reserve().await?;
        }
        let _tracked = kms.leftovers.track(&caller.request);
        if let Err(error) = operation.prepare(&kms, &caller).await {
            kms.record_refusal(&caller, O::CALL, operation.object(), &error)
                .await?;
            return Err(error);
        }
        let decided = kms.decide(&caller, &operation).await?;
        let result = operation.act(&kms, &caller, decided).await;
        match &result {
            Ok(_) => log::info!("{} {}: done for uid {}", O::CALL, operation.object(), caller.uid),
            Err(error) => log::warn!("{} {}: {}", O::CALL, operation.object(), error.full_message()),
        }
        result
    });
    task.await
        .unwrap_or_else(|error| Err(Error::because(Code::Internal, "the call was not ended", error)))
}

/// The caller's disk of this id or name.
///
/// # Errors
/// [`Code::NotFound`].
pub(crate) async fn find_disk(db: &mut SqliteConnection, caller: &Caller, wanted: &str) -> Result<DiskRow> {
    disks::find(db, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("disk", wanted))
}

/// The caller's instance of this id or name.
///
/// # Errors
/// [`Code::NotFound`].
pub(crate) async fn find_instance(
    db: &mut SqliteConnection,
    caller: &Caller,
    wanted: &str,
) -> Result<InstanceRow> {
    instances::find(db, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("instance", wanted))
}

/// The caller's snapshot of this id, of this name if that is unique in the account, or of this `DISK/NAME`; with
/// `disk`, one of that disk's.
///
/// # Errors
/// [`Code::NotFound`], [`Code::AmbiguousName`].
pub(crate) async fn find_snapshot(
    db: &mut SqliteConnection,
    caller: &Caller,
    disk: Option<&DiskRow>,
    wanted: &str,
) -> Result<SnapshotRow> {
    let (volume, name) = match (disk, wanted.split_once('/')) {
        (Some(disk), _) => (Some(disk.id.clone()), wanted),
        (None, Some((disk, name))) => (Some(find_disk(db, caller, disk).await?.id), name),
        (None, None) => (None, wanted),
    };
    let mut found = snapshots::find(db, &caller.account, volume.as_deref(), name).await?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (Some(_), others) => {
            let text = format!(
                "{} disks have a snapshot {name:?}: name it by its id, or as DISK/{name}",
                others + 1
            );
            Err(Error::new(Code::AmbiguousName, text))
        }
        (None, _) => match disk {
            Some(disk) => Err(Error::new(
                Code::NotFound,
                format!("disk {} has no snapshot {wanted:?}", disk.name),
            )),
            None => Err(not_found("snapshot", wanted)),
        },
    }
}

/// There is no such object.
pub(crate) fn not_found(kind: &str, wanted: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no {kind} {wanted:?}"))
}

/// Computes, or works on the KMS's own files, off the runtime. What lies at a path that a caller has named is looked at by
/// [`crate::aside`], which may be left waiting.
///
/// # Errors
/// Those of `work`, as [`Error`]; [`Code::Internal`] where that takes longer than [`limits::OWN_WORK_TIME`].
pub(crate) async fn off_runtime<T, E>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    match tokio::time::timeout(limits::OWN_WORK_TIME, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(error)) => Err(Error::because(
            Code::Internal,
            "a file operation was not ended",
            error,
        )),
        Err(late) => Err(Error::because(
            Code::Internal,
            "a file operation was not ended in time",
            late,
        )),
    }
}

#[cfg(test)]
mod instance_tests;
#[cfg(test)]
mod layered_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
