//! The supervisor: starts backends, hands them their store and key, restarts those that die, and takes over those
//! of the KMS before it.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sealblk_proto::message::{Command, Failure, OnFull, Outcome, SessionStatus, Stats};
use sealblk_proto::token::Token;

use super::connection::CommandError;
use super::failures::{code_of, start_error};
use super::listener::{self, Listening};
use super::plan::{Plan, SessionPlan};
use super::sandbox::{self, Checked, Sandbox};
use super::served::{Phase, Served, Tokens};
use super::shared::Shared;
use super::volume_lock::{VolumeLock, VolumeLocks};
use super::{by_name, dial, ending, sessions};
use crate::error::{Code, Error, Result};
use crate::{limits, state};

/// All served disks.
pub(crate) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    /// By the ids of their services.
    served: Mutex<HashMap<String, Entry>>,
    locks: VolumeLocks,
    /// What keeps a process in bounds that is started now; unset until that has been tried.
    checked: OnceLock<Checked>,
}

struct Entry {
    served: Arc<Served>,
    /// Where its processes dial, until this is dropped.
    _listening: Listening,
}

/// What is known of an attachment's backend.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) pid: Option<i32>,
    /// Why there is no backend.
    pub(crate) failure: Option<String>,
    /// What keeps it in bounds; none if it has not said so.
    pub(crate) sandbox: Option<Sandbox>,
}

impl Supervisor {
    pub(crate) fn new(shared: Shared) -> Self {
        Supervisor {
            shared: Arc::new(shared),
            served: Mutex::new(HashMap::new()),
            locks: VolumeLocks::default(),
            checked: OnceLock::new(),
        }
    }

    /// Has a process try what can keep it in bounds, and remembers that.
    pub(crate) async fn check_sandbox(&self) -> &Checked {
        let checked = sandbox::check(&self.shared.program).await;
        if let Err(why) = &checked {
            log::warn!("what keeps serving processes in bounds is not known: {why}");
        }
        for protection in checked.iter().flatten() {
            if let Some(cause) = &protection.cause {
                log::warn!(
                    "serving processes lack a part of their sandbox: {}: {cause}",
                    protection.name
                );
            }
        }
        self.checked.get_or_init(|| checked)
    }

    /// What keeps a process in bounds that is started now; none until that has been tried.
    pub(crate) fn sandbox(&self) -> Option<&Checked> {
        self.checked.get()
    }

    /// The disks of an account whose processes lack something of their sandbox.
    pub(crate) fn unconfined(&self, account: &str) -> Vec<(String, Sandbox)> {
        let mut unconfined: Vec<_> = self
            .entries()
            .values()
            .filter(|entry| entry.served.plan.account == account)
            .filter_map(|entry| {
                let sandbox = entry.served.look().sandbox.clone()?;
                Some((entry.served.plan.config.disk.clone(), sandbox))
            })
            .filter(|(_, sandbox)| !sandbox.is_full())
            .collect();
        unconfined.sort_by(|(one, _), (other, _)| one.cmp(other));
        unconfined
    }

    /// Makes the runtime directory of a disk's first attachment and its backend's socket. For another supervisor, the token
    /// is put into `token_file`, and its hash is given back for the catalogue.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub(crate) fn prepare(&self, plan: Plan, token_file: &Path) -> Result<Option<[u8; 32]>> {
        let failed = |error| {
            Error::because(
                Code::FileFailed,
                "the attachment's runtime directory cannot be made",
                error,
            )
        };
        state::make_directory(&plan.runtime, state::PASSAGE_MODE).map_err(failed)?;
        plan.sessions.iter().for_each(by_name::link);
        let mut tokens = Tokens::default();
        if !plan.start {
            let token = Token::generate().map_err(failed)?;
            write_token(token_file, &token, plan.uid).map_err(failed)?;
            tokens.current = Some(token.hash());
        }
        let hash = tokens.current.as_ref().map(|hash| hash.0);
        self.open(plan, tokens).map_err(failed)?;
        Ok(hash)
    }

    /// Listens for the backend of a disk that was attached before this process was started.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub(crate) fn adopt(&self, plan: Plan, tokens: Tokens) -> Result<()> {
        let failed =
            |error| Error::because(Code::FileFailed, "the attachment's socket cannot be made", error);
        let sessions = plan.sessions.iter().map(|session| &session.runtime);
        for runtime in std::iter::once(&plan.runtime).chain(sessions) {
            state::make_directory(runtime, state::PASSAGE_MODE).map_err(failed)?;
        }
        plan.sessions.iter().for_each(by_name::link);
        self.open(plan, tokens).map_err(failed)
    }

    pub(super) fn open(&self, plan: Plan, tokens: Tokens) -> io::Result<()> {
        let listener = listener::bind(&plan)?;
        let served = Arc::new(Served::new(plan, tokens));
        let listening = listener::serve(listener, Arc::clone(&served), Arc::clone(&self.shared))?;
        if served.plan.is_attachment() {
            // A process that maintains a store ends with its connection.
            let dials = dial::run(Arc::clone(&served), Arc::clone(&self.shared));
            self.shared.runtime.spawn(dials);
        }
        let entry = Entry {
            served: Arc::clone(&served),
            _listening: listening,
        };
        self.entries().insert(served.plan.service.clone(), entry);
        Ok(())
    }

    /// Starts the first backend of a disk and waits until it serves.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn start(&self, attachment: &str) -> Result<()> {
        let served = self.get(attachment)?;
        let _alone = served.starting.lock().await;
        served
            .start(&self.shared)
            .await
            .map_err(|failure| start_error(&failure))
    }

    /// Has a new process take the place of the one that serves, without the guest's noticing; and makes the sockets anew whose
    /// files have gone.
    ///
    /// # Errors
    /// Why it does not; then the former serves on. [`Code::NotSupported`] where another supervisor starts it.
    pub(crate) async fn replace(&self, attachment: &str) -> Result<()> {
        let served = self.get(attachment)?;
        if !served.plan.start {
            let text = "another supervisor starts this disk's process: have that restart it";
            return Err(Error::new(Code::NotSupported, text));
        }
        let _alone = served.starting.lock().await;
        served.replace(&self.shared).await.map_err(|failure| {
            let text = format!("no other process has taken over: {}", failure.message);
            Error::new(code_of(&failure), text)
        })?;
        served.renew_sockets().await.map_err(|failure| {
            let text = format!(
                "another process has taken over, but a socket whose file has gone cannot be made anew: {}",
                failure.message
            );
            Error::new(code_of(&failure), text)
        })
    }

    /// What is wrong with the file of an attachment's socket, while a process listens there; none if it does not answer.
    pub(crate) async fn socket_warning(&self, attachment: &str) -> Option<String> {
        if !self.is_serving(attachment) {
            return None;
        }
        let served = self.get(attachment).ok()?;
        let plan = served.sessions.find(attachment)?;
        let remedy = if served.sessions.has_own_socket(attachment) {
            "`sealctl backend restart` makes it anew"
        } else {
            "have the supervisor that has started the process restart it"
        };
        let trouble = served.sessions.socket_trouble(attachment).await?;
        let socket = plan.socket.display();
        Some(format!(
            "the socket {socket} {trouble}, and no virtual machine can connect: {remedy}"
        ))
    }

    /// Has the process that serves a disk serve one more attachment, and waits until it does; where another supervisor has
    /// not started it, it will.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn add_session(&self, service: &str, session: SessionPlan) -> Result<()> {
        let failed = |error| {
            Error::because(
                Code::FileFailed,
                "the attachment's runtime directory cannot be made",
                error,
            )
        };
        let served = self.get(service)?;
        state::make_directory(&session.runtime, state::PASSAGE_MODE).map_err(failed)?;
        by_name::link(&session);
        let added = served.add_session(&self.shared, session).await;
        added.map_err(|failure| start_error(&failure))
    }

    /// Ends the serving of one of several attachments, unless a virtual machine is connected to it and `force` is not set.
    ///
    /// # Errors
    /// [`Code::FrontendConnected`]; [`Code::BackendFailed`] if the process does not let go of it. Then it goes on serving.
    pub(crate) async fn end_session(&self, plan: &Plan, attachment: &str, force: bool) -> Result<()> {
        let Ok(served) = self.get(&plan.service) else {
            return ending::end(None, plan, &self.shared, force).await;
        };
        served.update(|inner| inner.detaching = true);
        if force {
            served.sessions.refuse(Some(attachment));
            ending::end_hand_over(&served, force).await;
        }
        let ended = {
            let _alone = served.starting.lock().await;
            ending::end_session(&served, plan, attachment, force).await
        };
        // The others are served, unless this is to be ended first.
        let hangs = matches!(&ended, Err(error) if error.code() == Code::StorageHangs);
        served.update(|inner| inner.detaching = hangs);
        ended
    }

    /// Removes what an attachment had that is one of a disk's no more.
    pub(crate) async fn remove_session(&self, plan: &Plan, session: &SessionPlan) {
        if let Ok(served) = self.get(&plan.service) {
            served.sessions.forget(&session.attachment);
        }
        by_name::unlink(session);
        sessions::remove_socket(session).await;
        // The service's has what its process needs.
        if session.runtime != plan.runtime {
            remove_directory(&session.runtime);
        }
    }

    /// From now on keeps the disk served, if that is not done already.
    pub(crate) fn supervise(&self, attachment: &str) {
        if let Ok(served) = self.get(attachment)
            && !served.update(|inner| std::mem::replace(&mut inner.supervised, true))
        {
            tokio::spawn(served.supervise(Arc::clone(&self.shared)));
        }
    }

    /// Waits until the backends of these services are connected, at most [`limits::ADOPTION_TIME`].
    pub(crate) async fn wait_for_backends(&self, services: &[String]) {
        let all = async {
            for service in services {
                if let Ok(served) = self.get(service) {
                    served.until(|inner| inner.phase == Phase::Serving).await;
                }
            }
        };
        let _ = tokio::time::timeout(limits::ADOPTION_TIME, all).await;
    }

    /// Ends the backend, unless a virtual machine is connected and `force` is not set. Afterwards nobody holds the
    /// store, and until [`Supervisor::go_on`] nobody is given it.
    ///
    /// # Errors
    /// [`Code::FrontendConnected`]; [`Code::BackendFailed`] if a process holds the store. Then it goes on serving.
    pub(crate) async fn end(&self, plan: &Plan, force: bool) -> Result<()> {
        let Ok(served) = self.get(&plan.service) else {
            return ending::end(None, plan, &self.shared, force).await;
        };
        served.update(|inner| inner.detaching = true);
        if force {
            // A process that has just been ended connects anew at once, and is to be refused then: it tries again. If it came
            // to a socket on which nobody accepts any more, it would be reset, and give up.
            served.sessions.refuse(None);
            ending::end_hand_over(&served, force).await;
        }
        let _alone = served.starting.lock().await;
        let ended = ending::end(Some(&served), plan, &self.shared, force).await;
        // Nobody else is given it before the kernel lets go of a process that has been killed.
        if matches!(&ended, Err(error) if error.code() != Code::StorageHangs) {
            served.update(|inner| inner.detaching = false);
        }
        ended
    }

    /// The disk's process has been killed, and is being waited for.
    pub(crate) fn expect_end(&self, attachment: &str) {
        if let Ok(served) = self.get(attachment) {
            served.update(|inner| inner.detaching = true);
        }
    }

    /// The attachment is to be served after all.
    pub(crate) fn go_on(&self, attachment: &str) {
        if let Ok(served) = self.get(attachment) {
            served.update(|inner| inner.detaching = false);
        }
    }

    /// Forgets a disk whose backend has ended, and removes its sockets and runtime directories.
    pub(crate) async fn remove(&self, plan: &Plan) {
        self.forget(plan);
        for session in &plan.sessions {
            by_name::unlink(session);
            sessions::remove_socket(session).await;
            remove_directory(&session.runtime);
        }
        remove_directory(&plan.runtime);
    }

    /// Nothing listens for its backend any more.
    pub(super) fn forget(&self, plan: &Plan) {
        if let Some(entry) = self.entries().remove(&plan.service) {
            entry.served.update(|inner| inner.removed = true);
            entry.served.sessions.forget_all();
        }
    }

    /// What is known of the backend.
    pub(crate) fn status(&self, attachment: &str) -> Status {
        let Ok(served) = self.get(attachment) else {
            let failure = Some("its backend's socket could not be made at the start of the KMS".to_owned());
            return Status {
                phase: Phase::Restarting,
                pid: None,
                failure,
                sandbox: None,
            };
        };
        let failed = served.sessions.failure(attachment);
        let inner = served.look();
        let phase = match inner.phase {
            Phase::Serving if failed.is_some() => Phase::Restarting,
            phase => phase,
        };
        Status {
            phase,
            pid: inner.process.as_ref().map(|process| process.pid()),
            failure: failed.as_ref().or(inner.failure.as_ref()).map(Failure::to_string),
            sandbox: inner.sandbox.clone(),
        }
    }

    /// The user that a service's process is to have, if that is not this one.
    pub(crate) fn user_of(&self, service: &str) -> Option<u32> {
        let uid = self.get(service).ok()?.plan.uid;
        (uid != rustix::process::geteuid().as_raw()).then_some(uid)
    }

    /// Whether a backend serves the attachment.
    pub(crate) fn is_serving(&self, attachment: &str) -> bool {
        self.get(attachment).is_ok_and(|served| {
            served.look().phase == Phase::Serving && served.sessions.failure(attachment).is_none()
        })
    }

    /// Which of a disk's attachments are served, to whom and how, if its backend says so soon.
    pub(crate) async fn sessions(&self, attachment: &str) -> Option<Vec<SessionStatus>> {
        let served = self.get(attachment).ok()?;
        let connection = served.look().connection.clone()?;
        match connection
            .try_request(Command::Sessions, limits::STATS_TIME)
            .await
        {
            Ok(Outcome::Sessions(sessions)) => Some(sessions),
            _ => None,
        }
    }

    /// The backend's counters, if it gives them soon.
    pub(crate) async fn stats(&self, attachment: &str) -> Option<Stats> {
        let served = self.get(attachment).ok()?;
        let connection = served.look().connection.clone()?;
        match connection.try_request(Command::Stats, limits::STATS_TIME).await {
            Ok(Outcome::Stats(stats)) => {
                served.reports(stats.store.as_ref());
                let wanted = served.config().on_full;
                if stats.room.as_ref().is_some_and(|room| room.on_full != wanted) {
                    // When it came back it took too long to say so.
                    let command = Command::OnFull(wanted);
                    _ = connection.request(command, limits::STATS_TIME).await;
                }
                Some(stats)
            }
            _ => None,
        }
    }

    /// Waits for the lock on a volume: whoever has it may hand the store over, or end who has it.
    pub(crate) async fn lock(&self, volume: &str) -> VolumeLock {
        self.locks.take(volume).await
    }

    /// The lock on a volume, unless its holder examines the store, which can take hours: then none.
    pub(crate) async fn lock_soon(&self, volume: &str) -> Option<VolumeLock> {
        self.locks.take_soon(volume).await
    }

    /// The lock on a volume, for a call that ends the disk's process by force: a command on whose answer the lock's holder waits
    /// is given up.
    pub(crate) async fn lock_by_force(&self, volume: &str, attachment: &str) -> VolumeLock {
        let lock = self.locks.take(volume);
        tokio::pin!(lock);
        if let Ok(lock) = tokio::time::timeout(limits::FORCED_LOCK_TIME, &mut lock).await {
            return lock;
        }
        let connection = self
            .get(attachment)
            .ok()
            .and_then(|served| served.look().connection.clone());
        if let Some(connection) = connection {
            connection.end();
        }
        lock.await
    }

    /// Whether somebody has the lock on a volume.
    pub(crate) fn is_taken(&self, volume: &str) -> bool {
        self.locks.is_taken(volume)
    }

    /// Whether somebody waits for the lock on a volume that another has.
    pub(crate) fn is_awaited(&self, volume: &str) -> bool {
        self.locks.is_awaited(volume)
    }

    /// Sends a command to the backend of an attachment and waits for its answer. A backend that is just coming back is
    /// waited for.
    ///
    /// # Errors
    /// [`Code::NotServed`] if there is no backend: nothing was sent. Inside, [`CommandError`].
    pub(crate) async fn request(
        &self,
        attachment: &str,
        command: Command,
        time: Duration,
    ) -> Result<std::result::Result<Outcome, CommandError>> {
        let served = self.get(attachment)?;
        match served.connected(limits::RETURN_TIME).await {
            Some(connection) => Ok(connection.request(command, time).await),
            None => Err(Error::new(
                Code::NotServed,
                "the disk is attached, and no process serves it at the moment: see `sealctl disk show`, or detach it",
            )),
        }
    }

    /// The disk of an attachment has another size from now on.
    pub(crate) fn resized(&self, attachment: &str, size: u64) {
        if let Ok(served) = self.get(attachment) {
            served.resize(size);
        }
    }

    /// Whether the process that serves an attachment knows that guests may see less than a disk has; not if none does at the moment.
    pub(crate) async fn knows_guest_size(&self, attachment: &str) -> bool {
        let stats = self.stats(attachment).await;
        stats.is_some_and(|stats| stats.guest_size.is_some())
    }

    /// Guests of an attached disk, which is going to grow, see this much of it from now on, in bytes, until it is attached anew (rule
    /// D06). The process is told when it grows, and its successors when they begin.
    pub(crate) fn keep_guest_size(&self, attachment: &str, size: u64) {
        if let Ok(served) = self.get(attachment) {
            served.keep_guest_size(size);
        }
    }

    /// From now on this becomes of the writes to an attached disk that the host has no room for. A process of an earlier version
    /// goes on as it does until it is replaced.
    pub(crate) async fn set_on_full(&self, attachment: &str, on_full: OnFull) {
        let Ok(served) = self.get(attachment) else { return };
        served.set_on_full(on_full);
        let knows = self
            .stats(attachment)
            .await
            .is_some_and(|stats| stats.room.is_some());
        let connection = served.look().connection.clone();
        if let Some(connection) = connection.filter(|_| knows) {
            // A process that comes back after a failure is told then.
            let _ = connection
                .request(Command::OnFull(on_full), limits::STATS_TIME)
                .await;
        }
    }

    /// As if the process had died: nothing listens, nothing is supervised, and backends lose their connection.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn abandon(&self) {
        for (_, entry) in self.entries().drain() {
            entry.served.sessions.let_go();
            let connection = entry.served.update(|inner| {
                inner.removed = true;
                inner.connection.take()
            });
            if let Some(connection) = connection {
                connection.end();
            }
        }
    }

    /// By the id of the service, or of one of its attachments.
    pub(super) fn get(&self, attachment: &str) -> Result<Arc<Served>> {
        let entries = self.entries();
        let further = || {
            entries
                .values()
                .find(|entry| entry.served.sessions.has(attachment))
        };
        entries
            .get(attachment)
            .or_else(further)
            .map(|entry| Arc::clone(&entry.served))
            .ok_or_else(|| Error::new(Code::Internal, format!("{attachment} is not supervised")))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn remove_directory(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("{} cannot be removed: {error}", path.display());
    }
}

fn write_token(path: &Path, token: &Token, uid: u32) -> io::Result<()> {
    use std::io::Write;
    let digits = zeroize::Zeroizing::new(token.to_hex());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{}", digits.as_str())?;
    if uid != rustix::process::geteuid().as_raw() {
        std::os::unix::fs::fchown(&file, Some(uid), Some(uid))?;
    }
    Ok(())
}
