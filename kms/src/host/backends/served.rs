//! One served disk: what is known of its backend.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealblk_proto::channel::Channel;
use sealblk_proto::message::{AttachmentConfig, Failure, OnFull, StoreState};
use sealblk_proto::token::TokenHash;
use tokio::sync::watch;

use super::connection::Connection;
use super::plan::{Plan, SessionPlan};
use super::process::{Identity, Process};
use super::sandbox::Sandbox;
use super::sessions::Sessions;

/// Time between two looks at what tells no end by itself.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How far the serving of a disk has come; as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first backend has been started.
    Starting,
    /// A backend serves.
    Serving,
    /// Another supervisor is to start a backend.
    Waiting,
    /// The backend has died, and the next one does not serve yet.
    Restarting,
    /// The backend is ending, and the kernel does not let go of it: it waits for its storage.
    Stuck,
}

impl Phase {
    /// As in the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Waiting => "waiting",
            Phase::Restarting => "restarting",
            Phase::Stuck => "error",
        }
    }
}

/// Hashes of the tokens that are good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// Hash of the token of the backend that serves, or of the one that another supervisor starts.
    pub(crate) current: Option<TokenHash>,
    /// Hash of the token of a backend that has been started. The former token stays good until this one serves: its backend may
    /// still live.
    pub(crate) next: Option<TokenHash>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) phase: Phase,
    pub(super) tokens: Tokens,
    /// For the process that is to take over from the one that serves: a socket to that one.
    pub(super) bridge: Option<Channel>,
    /// The process to which the disk is being handed over.
    pub(super) claimant: Option<Arc<Claimant>>,
    /// Operators want it detached: no backend is started, and the end of one is no surprise.
    pub(super) detaching: bool,
    /// It is kept served.
    pub(super) supervised: bool,
    /// The attachment has been ended, and this is forgotten: nothing waits for it any more.
    pub(super) removed: bool,
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) process: Option<Arc<Process>>,
    /// The process that was last given the store, connected or not.
    pub(super) backend: Option<Identity>,
    /// What keeps the process in bounds; none if it has not said so.
    pub(super) sandbox: Option<Sandbox>,
    /// Why the last start failed.
    pub(super) failure: Option<Failure>,
    /// How often a process that is opening the store has said so.
    pub(super) steps: u64,
}

impl Inner {
    pub(super) fn is_claimed_by(&self, claimant: &Arc<Claimant>) -> bool {
        self.claimant
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, claimant))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| !connection.is_dead())
    }

    pub(super) fn is_served_by_pid(&self, pid: i32) -> bool {
        self.process.as_ref().is_some_and(|current| current.pid() == pid)
    }

    pub(super) fn is_served_by(&self, process: &Arc<Process>) -> bool {
        self.process
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, process))
    }
}

/// The other side of a hand-over that goes on.
#[derive(Debug)]
pub(super) struct Claimant {
    pub(super) process: Arc<Process>,
    pub(super) channel: Channel,
    /// Whether the process was just started, so that a living backend may take its place.
    pub(super) replaceable: bool,
    /// Set when the process serves: then it is too late for that.
    pub(super) settled: AtomicBool,
}

impl Claimant {
    /// Kills it, which ends the hand-over.
    pub(super) fn end(&self) {
        self.process.kill();
        self.channel.shutdown();
    }
}

/// A disk that is served, or shall be.
#[derive(Debug)]
pub(crate) struct Served {
    /// As it was at first; see [`Served::sessions`].
    pub(crate) plan: Plan,
    /// The attachments that are to be served.
    pub(super) sessions: Sessions,
    /// Size of the disk in bytes, which may have grown since the plan was made.
    size: AtomicU64,
    /// What guests see of it, which may have been noted likewise; 0: all of it.
    guest_size: AtomicU64,
    /// Whether writes without room are held, which may have changed likewise.
    holds: AtomicBool,
    /// What a process has said last of the store.
    said: Mutex<Option<StoreState>>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    /// Held while a backend is being started.
    pub(super) starting: tokio::sync::Mutex<()>,
}

impl Served {
    pub(super) fn new(plan: Plan, tokens: Tokens) -> Self {
        let inner = Inner {
            phase: if plan.start {
                Phase::Starting
            } else {
                Phase::Waiting
            },
            tokens,
            bridge: None,
            claimant: None,
            detaching: false,
            supervised: false,
            removed: false,
            connection: None,
            process: None,
            backend: plan.backend.clone(),
            sandbox: None,
            failure: None,
            steps: 0,
        };
        Served {
            size: AtomicU64::new(plan.config.size),
            guest_size: AtomicU64::new(plan.config.guest_size.unwrap_or_default()),
            holds: AtomicBool::new(plan.config.on_full == OnFull::Stop),
            sessions: Sessions::new(plan.sessions.clone(), (!plan.start).then(|| plan.service.clone())),
            plan,
            said: Mutex::default(),
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
            starting: tokio::sync::Mutex::new(()),
        }
    }

    /// What a backend is told. The session that is its own comes with that, the others by command.
    pub(super) fn config(&self) -> AttachmentConfig {
        let config = AttachmentConfig {
            size: self.size.load(Ordering::Relaxed),
            guest_size: Some(self.guest_size.load(Ordering::Relaxed)).filter(|size| *size > 0),
            on_full: match self.holds.load(Ordering::Relaxed) {
                true => OnFull::Stop,
                false => OnFull::Error,
            },
            ..self.plan.config.clone()
        };
        let config = match self.own_session() {
            None => config,
            Some(own) => AttachmentConfig {
                read_only: own.read_only,
                queues: own.queues,
                socket: own.socket.to_string_lossy().into_owned(),
                ..config
            },
        };
        // A process of an earlier version does not know of it, and needs not where it says nothing new.
        let all_queues = self.sessions.queues();
        match self.plan.shared && all_queues != config.queues {
            true => AttachmentConfig { all_queues, ..config },
            false => config,
        }
    }

    /// The session of the attachment that the service began with, as long as there is that.
    pub(super) fn own_session(&self) -> Option<SessionPlan> {
        self.sessions.find(&self.plan.service)
    }

    /// The disk has another size from now on.
    pub(super) fn resize(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// From now on guests see so much of the disk, unless less was said before: it grows.
    pub(super) fn keep_guest_size(&self, size: u64) {
        let _ = self
            .guest_size
            .compare_exchange(0, size, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The process that has the store says what that is.
    pub(super) fn reports(&self, state: Option<&StoreState>) {
        if let Some(state) = state {
            *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
        }
    }

    /// What a process has said last of the store.
    pub(super) fn said(&self) -> Option<StoreState> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this becomes of writes without room.
    pub(super) fn set_on_full(&self, on_full: OnFull) {
        self.holds.store(on_full == OnFull::Stop, Ordering::Relaxed);
    }

    pub(super) fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and wakes those who wait for a change.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.look());
        self.changed.send_replace(());
        result
    }

    /// Waits until `holds`.
    pub(super) async fn until(&self, mut holds: impl FnMut(&Inner) -> bool) {
        let mut changes = self.changed.subscribe();
        while !holds(&self.look()) {
            // The sender lives as long as this object.
            let _ = changes.changed().await;
        }
    }

    /// A backend has shown that it serves.
    pub(super) fn serves(
        &self,
        connection: Arc<Connection>,
        process: Arc<Process>,
        sandbox: Option<Sandbox>,
    ) {
        log::info!("{}: served by process {}", self.plan.service, process.pid());
        self.update(|inner| {
            inner.connection = Some(connection);
            inner.process = Some(process);
            inner.sandbox = sandbox;
            inner.phase = Phase::Serving;
            inner.failure = None;
        });
    }

    /// A process that is opening the store gets on.
    pub(super) fn gets_on(&self) {
        self.update(|inner| inner.steps += 1);
    }

    /// The process is ending, and the kernel does not let go of it yet: until then nobody else can serve.
    pub(super) fn is_stuck(&self, process: &Arc<Process>) {
        let text = format!(
            "process {} is ending and waits for its storage, which does not answer",
            process.pid()
        );
        if self.look().phase != Phase::Stuck {
            log::error!("{}: {text}", self.plan.service);
        }
        // A virtual machine that connected would wait with it.
        self.sessions.refuse(None);
        self.update(|inner| {
            if let Some(connection) = inner.connection.take() {
                connection.end();
            }
            inner.process = Some(Arc::clone(process));
            inner.phase = Phase::Stuck;
            inner.failure = Some(Failure::new("StorageHangs", text));
        });
    }

    /// The process has ended: nobody serves any more.
    pub(super) fn lost(&self, process: &Arc<Process>) {
        let phase = if self.plan.start {
            Phase::Restarting
        } else {
            Phase::Waiting
        };
        self.update(|inner| {
            if inner.is_served_by(process) {
                inner.process = None;
                inner.connection = None;
                inner.sandbox = None;
                if std::mem::replace(&mut inner.phase, phase) == Phase::Stuck {
                    inner.failure = None;
                }
            }
        });
    }

    /// The connection to the backend; one that is just coming back is waited for, at most so long. One whose last start has
    /// failed, or that the kernel does not let go of, may be long in coming.
    pub(super) async fn connected(&self, patience: Duration) -> Option<Arc<Connection>> {
        let deadline = Instant::now() + patience;
        loop {
            {
                let inner = self.look();
                let connection = inner
                    .connection
                    .clone()
                    .filter(|connection| !connection.is_dead());
                let is_coming = !inner.removed && inner.phase != Phase::Waiting && inner.failure.is_none();
                if connection.is_some() || !is_coming {
                    return connection;
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use sealblk_proto::message::StoreKind;

    use super::*;
    use crate::host::backends::plan::{Disk, Service, StorePlace};
    use crate::host::store::Expected;
    use crate::state::StateDir;

    fn served(start: bool) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let (state, _lock) = StateDir::create(&directory.path().join("state")).unwrap();
        let disk = Disk {
            id: "disk-aaaaaaaaaaaaaaaa".to_owned(),
            account: "default".to_owned(),
            lineage: None,
            size: 4096,
            encrypted: false,
            kind: StoreKind::Raw,
            store: StorePlace {
                path: state.store("disk-aaaaaaaaaaaaaaaa", None),
                expected: Expected::InState,
                passed: None,
            },
            bases: Vec::new(),
        };
        let service = Service {
            id: "att-aaaaaaaaaaaaaaaa".to_owned(),
            start,
            own_user: false,
            serial: 1,
            guest_size: None,
            backend: None,
        };
        let plan = Plan::serving(&state, disk, (false, OnFull::Error), service, Vec::new());
        Served::new(plan, Tokens::default())
    }

    /// Whether somebody who needs the process's connection would wait for it.
    async fn is_awaited(served: &Served) -> bool {
        let connection = served.connected(Duration::from_secs(60));
        let at_once = tokio::time::timeout(Duration::ZERO, connection).await;
        at_once.is_err()
    }

    #[tokio::test]
    async fn a_process_is_awaited_only_while_it_is_just_coming() {
        let one = served(true);
        assert!(is_awaited(&one).await);
        one.update(|inner| {
            inner.phase = Phase::Restarting;
            inner.failure = Some(Failure::new("BackendFailed", "it did not start"));
        });
        assert!(!is_awaited(&one).await, "the next attempt may fail as well");
        one.update(|inner| inner.failure = None);
        assert!(is_awaited(&one).await);
        assert!(!is_awaited(&served(false)).await, "another supervisor starts it");
    }
}
