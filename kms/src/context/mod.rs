//! The daemon's parts, and what every call does with them.

pub(crate) mod copies;
pub(crate) mod facts;
pub(crate) mod find;
pub(crate) mod key_use;
pub(crate) mod machines;
pub(crate) mod passes;
pub(crate) mod plans;
pub(crate) mod quotas;
pub(crate) mod records;
pub(crate) mod reports;
pub(crate) mod retry_queue;
pub(crate) mod root_file;
pub(crate) mod state_files;
pub(crate) mod strangers;

use std::sync::Arc;

use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use crate::audit::sinks::Sinks;
use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::meta::Meta;
use crate::catalogue::{Catalogue, audit_records, intents};
use crate::conditions::Conditions;
use crate::error::{Code, Error, Result};
use crate::host::backends::vhost_socket::SocketAccess;
use crate::host::backends::{Supervisor, VolumeLocks};
use crate::host::paths::HostPaths;
use crate::id::{self, Kind};
use crate::keys::fee::Fees;
use crate::keys::imports::Imports;
use crate::keys::keyring::Keyring;
use crate::keys::root::RootKeyProvider;
use crate::limits;
use crate::profile::Profile;
use crate::state::StateDir;
use crate::timekeeper::Timekeeper;
use copies::Copies;
use machines::Machines;
use passes::Passes;
use quotas::Quotas;
use reports::Reports;
use retry_queue::RetryQueue;
use root_file::RootFile;
use strangers::Strangers;

/// The daemon's parts.
pub(crate) struct Kms {
    pub(crate) state: StateDir,
    pub(crate) catalogue: Catalogue,
    pub(crate) keyring: Keyring,
    pub(crate) meta: Meta,
    pub(crate) profile: &'static Profile,
    pub(crate) supervisor: Supervisor,
    pub(crate) paths: HostPaths,
    pub(crate) retries: Arc<RetryQueue>,
    /// Longest wait before a key is destroyed, in days (rule K11).
    pub(crate) deletion_days_most: u16,
    /// Processes are to serve with all of their sandbox or not at all.
    pub(crate) require_sandbox: bool,
    /// Who may connect to disks, where a call does not say.
    pub(crate) vhost_access: SocketAccess,
    pub(crate) imports: Imports,
    /// Locks by account, each held while a pair for an import is made, which takes a processor for a second.
    pub(crate) generating: VolumeLocks,
    /// How much each account may have.
    pub(crate) quotas: Quotas,
    pub(crate) conditions: Arc<Conditions>,
    pub(crate) clock: Timekeeper,
    pub(crate) root_provider: Arc<dyn RootKeyProvider>,
    pub(crate) root_file: RootFile,
    /// Held while the root key is being rotated.
    pub(crate) rotating_root: Arc<tokio::sync::Mutex<()>>,
    /// Told when keys need work in the background.
    pub(crate) key_work: Arc<Notify>,
    pub(crate) copies: Copies,
    pub(crate) reports: Reports,
    /// Held while volumes that nothing needs are removed.
    pub(crate) sweeping: tokio::sync::Mutex<()>,
    /// The callers that wait for the audit log to be recomputed.
    pub(crate) passes: Passes,
    /// What running virtual machines can write to.
    pub(crate) machines: Arc<Machines>,
    /// Refused calls that are to be recorded.
    pub(crate) strangers: Strangers,
    /// Where records of the audit log go besides.
    pub(crate) sinks: Arc<Sinks>,
    /// Read by operations that run; written once, when the daemon ends.
    pub(crate) ending: RwLock<bool>,
}

/// What a start has found and opened.
pub(crate) struct Opened {
    pub(crate) state: StateDir,
    pub(crate) catalogue: Catalogue,
    pub(crate) keyring: Keyring,
    pub(crate) root_provider: Arc<dyn RootKeyProvider>,
    pub(crate) meta: Meta,
    pub(crate) profile: &'static Profile,
    pub(crate) supervisor: Supervisor,
    pub(crate) machines: Arc<Machines>,
    pub(crate) clock: Timekeeper,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) retries: Arc<RetryQueue>,
}

impl Kms {
    pub(crate) fn new(opened: Opened) -> Self {
        Kms {
            paths: HostPaths::new(&opened.state, None),
            state: opened.state,
            catalogue: opened.catalogue,
            keyring: opened.keyring,
            meta: opened.meta,
            profile: opened.profile,
            supervisor: opened.supervisor,
            retries: opened.retries,
            deletion_days_most: limits::DELETION_DAYS_MOST,
            require_sandbox: false,
            vhost_access: SocketAccess::OWN,
            imports: Imports::default(),
            generating: VolumeLocks::default(),
            quotas: Quotas::default(),
            conditions: Arc::default(),
            clock: opened.clock,
            root_file: RootFile::loaded(&*opened.root_provider),
            root_provider: opened.root_provider,
            rotating_root: Arc::default(),
            key_work: Arc::default(),
            copies: Copies::default(),
            reports: Reports::default(),
            sweeping: tokio::sync::Mutex::default(),
            passes: Passes::default(),
            machines: opened.machines,
            strangers: Strangers::default(),
            sinks: opened.sinks,
            ending: RwLock::new(false),
        }
    }

    /// What keys cost this month (rule M03).
    pub(crate) fn fees(&self) -> Fees<'_> {
        let fee = self.profile.customer_key_fee;
        Fees {
            fee: (fee > 0).then(|| i64::try_from(fee).unwrap_or(i64::MAX)),
            month: self.clock.month(),
            region: &self.meta.region,
        }
    }

    /// Waits for the operations that run; no other begins.
    pub(crate) async fn end(&self) {
        *self.ending.write().await = true;
    }

    /// As long as the result lives, the daemon does not end.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`].
    pub(crate) async fn begin(&self) -> Result<RwLockReadGuard<'_, bool>> {
        let ending = self.ending.read().await;
        if *ending {
            return Err(Error::new(
                Code::ShuttingDown,
                "the daemon is ending: try again when it is back",
            ));
        }
        Ok(ending)
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
        tx.commit().await.map_err(lost)?;
        self.sinks.wake();
        Ok(())
    }

    /// Refuses what would take of the room that is kept for what frees room. That is not recorded, since it would take of it, too.
    ///
    /// # Errors
    /// [`Code::NoSpace`].
    pub(crate) async fn check_reserve(&self) -> Result<()> {
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
             frees room is done; delete disks with --now, snapshots or backups, or make room otherwise"
        );
        Err(Error::new(Code::NoSpace, text))
    }

    /// Records a refusal, and the alarm that it raises. It is one whether the required sinks have it then or not.
    ///
    /// # Errors
    /// [`Code::AuditFailed`].
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
        tx.commit().await.map_err(lost)?;
        self.sinks.wake();
        self.sinks.settle(&self.catalogue).await;
        Ok(())
    }

    /// Records that a call that was allowed did not succeed, unless what has undone it says so already, or its outcome is not known
    /// yet. The call has failed whether that can be recorded or not.
    pub(crate) async fn record_failure(&self, caller: &Caller, call: &str, object: &str, error: &Error) {
        let recorded = async {
            let mut tx = self.catalogue.write().await?;
            if intents::of_request(&mut tx, &caller.request).await?
                || audit_records::has_end(&mut tx, &caller.request, call).await?
            {
                return Ok(());
            }
            audit::append(&mut tx, caller, call, object, Decision::ended(error)).await?;
            Ok(tx.commit().await?)
        };
        let recorded: Result<()> = recorded.await;
        self.sinks.wake();
        if let Err(lost) = recorded {
            log::error!(
                "{call} of {object} has failed, which is not in the audit log: {}",
                lost.full_message()
            );
        }
    }

    /// A caller for what this process does on its own for an account.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub(crate) fn own_caller(&self, account: &str) -> Result<Caller> {
        Ok(Caller {
            account: account.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id().cast_signed(),
            request: id::new(Kind::Request)?,
            facts: Facts::default(),
        })
    }
}
