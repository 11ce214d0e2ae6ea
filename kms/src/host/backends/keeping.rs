//! Keeping a disk served: its process started, replaced, watched and restarted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::Channel;
use sealblk_proto::message::{Command, Failure, Outcome, code};
use sealblk_proto::token::Token;

use super::connection::{CommandError, Connection};
use super::plan::SessionPlan;
use super::process::Process;
use super::served::{Inner, LOOK_INTERVAL, Phase, Served};
use super::shared::Shared;
use super::{attend, child, control_socket, store_lock};
use crate::host::aside;
use crate::limits;

impl Served {
    /// Has one more attachment served, and waits until it is, if there is a process or is to be one.
    ///
    /// # Errors
    /// Why it is not; then it is not to be served.
    pub(super) async fn add_session(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        session: SessionPlan,
    ) -> Result<(), Failure> {
        let attachment = session.attachment.clone();
        // A process that is started or comes back from now on has it, too.
        self.sessions.want(session);
        let added = self.bring_in(shared, &attachment).await;
        if added.is_err() {
            self.sessions.forget(&attachment);
        }
        added
    }

    async fn bring_in(self: &Arc<Self>, shared: &Arc<Shared>, attachment: &str) -> Result<(), Failure> {
        let broken = |error: &dyn std::error::Error| Failure::new("BackendFailed", with_causes(error));
        // The process may die of something else meanwhile; not twice.
        for attempt in 0..2 {
            let Some(connection) = self.connected(limits::RETURN_TIME).await else {
                let waits = !self.plan.start && self.look().process.is_none();
                let text = "no process serves the disk at the moment";
                return if waits {
                    Ok(())
                } else {
                    Err(Failure::new(code::NOT_SERVED, text))
                };
            };
            let (served, all) = (Arc::clone(self), Arc::clone(shared));
            let reconcile = move || attend::reconcile(&served, &all, &connection);
            match tokio::task::spawn_blocking(reconcile).await {
                Ok(Ok(())) => return self.sessions.failure(attachment).map_or(Ok(()), Err),
                Ok(Err(CommandError::Closed)) if attempt == 0 => {}
                Ok(Err(error)) => return Err(broken(&error)),
                Err(error) => return Err(broken(&error)),
            }
        }
        let text = "the serving process ends again and again";
        Err(Failure::new("BackendFailed", text))
    }

    /// Starts a backend and waits until it serves.
    ///
    /// # Errors
    /// Why it does not; then it has been ended.
    pub(super) async fn start(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<(), Failure> {
        self.wait_for_store().await?;
        let token = self.new_token(shared).await?;
        let (process, reaper) = self.spawn(shared, token, false).await?;
        let result = self.wait_until_served(&process, reaper).await;
        // A backend that came back while this one was being started serves in its place.
        if result.is_err() || !self.look().is_served_by_pid(process.pid()) {
            self.end_unneeded(&process).await;
        }
        result
    }

    /// Ends a process that does not serve.
    async fn end_unneeded(&self, process: &Process) {
        process.kill();
        if !process.ended_within(limits::BACKEND_TIME).await {
            log::error!(
                "{}: process {} was killed and waits for its storage, which does not answer",
                self.plan.service,
                process.pid()
            );
        }
        control_socket::remove(&self.plan, process.pid());
    }

    /// Starts a backend and has the one that serves hand over to it.
    ///
    /// # Errors
    /// Why it does not take over; then it has been ended, and unless it had just been told to go on alone the former serves.
    pub(super) async fn replace(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<(), Failure> {
        let Some(connection) = self.look().connection.clone() else {
            return Err(Failure::new(
                code::NOT_SERVED,
                "no process serves the disk at the moment",
            ));
        };
        let (ours, theirs) =
            Channel::pair().map_err(|error| Failure::new("BackendFailed", format!("no socket: {error}")))?;
        let token = self.new_token(shared).await?;
        self.update(|inner| inner.bridge = Some(theirs));
        let replaced = match self.spawn(shared, token, true).await {
            Ok((process, _reaper)) => self.hand_over_to(&process, &connection, ours).await,
            Err(failure) => Err(failure),
        };
        self.update(|inner| inner.bridge = None);
        replaced
    }

    async fn hand_over_to(
        &self,
        process: &Arc<Process>,
        connection: &Arc<Connection>,
        bridge: Channel,
    ) -> Result<(), Failure> {
        let handed_over = connection
            .request_with(Command::HandOver, Some(bridge.into()), limits::REPLACEMENT_TIME)
            .await;
        let mut failure = Failure::new("BackendFailed", "the new process has not taken over");
        match handed_over {
            // The one that has handed over ends, and may have no time for a word.
            Ok(Outcome::Done) | Err(CommandError::Closed) => {
                let serves = self.until(|inner| inner.is_served_by_pid(process.pid()));
                tokio::select! {
                    () = serves => {}
                    () = process.ended() => {}
                    () = self.silence() => {}
                }
            }
            Ok(Outcome::Failed(why)) => failure = why,
            Ok(_) => failure.message = "the old process has answered another question".to_owned(),
            Err(error) => failure.message = with_causes(&error),
        }
        if self.look().is_served_by_pid(process.pid()) {
            return Ok(());
        }
        self.end_unneeded(process).await;
        Err(failure)
    }

    /// Makes the sockets anew whose files have gone, for the process that serves.
    ///
    /// # Errors
    /// Why one cannot be made.
    pub(super) async fn renew_sockets(self: &Arc<Self>) -> Result<(), Failure> {
        let broken = |text: String| Failure::new("BackendFailed", text);
        let connection = self.look().connection.clone();
        let connection = connection.ok_or_else(|| broken("the connection has ended".to_owned()))?;
        let served = Arc::clone(self);
        let renewed = tokio::task::spawn_blocking(move || attend::renew_sockets(&served, &connection));
        renewed
            .await
            .unwrap_or_else(|error| Err(broken(error.to_string())))
    }

    /// Starts a process; somebody else waits until it serves.
    async fn spawn(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        token: Token,
        takes_over: bool,
    ) -> Result<(Arc<Process>, tokio::task::JoinHandle<()>), Failure> {
        let socket = match self.own_session().filter(|_| !takes_over) {
            Some(own) => Some(self.sessions.socket(&own).await),
            None => None,
        };
        let socket = socket.transpose().map_err(|error| attend::unusable(&error))?;
        let (served, program) = (Arc::clone(self), shared.program.clone());
        let spawn = move || child::spawn(&program, &served.plan, socket, &token);
        let spawned = tokio::task::spawn_blocking(spawn).await;
        let mut child = spawned.map_err(|error| Failure::new("BackendFailed", error.to_string()))??;
        let process = match Process::open(child.id() as i32) {
            Ok(process) => Arc::new(process),
            Err(error) => {
                // Without a pidfd it could not be supervised.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(Failure::new(
                    "BackendFailed",
                    format!("the new process cannot be watched: {error}"),
                ));
            }
        };
        let reaped = Arc::clone(&process);
        let reaper = tokio::spawn(async move { reaped.reap(child).await });
        Ok((process, reaper))
    }

    /// Rule A08: while the lock is held, its holder serves on the socket that a new backend would replace.
    async fn wait_for_store(&self) -> Result<(), Failure> {
        let patience = if self.plan.is_attachment() {
            limits::SHORT_LIFE
        } else {
            // Nobody tries it again.
            limits::STORE_RELEASE_TIME
        };
        let deadline = Instant::now() + patience;
        let source = self.plan.source.as_ref();
        let own = std::iter::once(&self.plan.store).chain(source.map(|source| &source.store));
        // What others may have, and need only answer.
        let bases = self
            .plan
            .bases
            .iter()
            .chain(source.into_iter().flat_map(|source| &source.bases));
        let stores: Vec<_> = own
            .map(|store| (store.path.clone(), true))
            .chain(bases.map(|store| (store.path.clone(), false)))
            .collect();
        loop {
            let mut held = None;
            for (store, own) in &stores {
                match aside::look(store, limits::LOOK_TIME, store_lock::is_held).await {
                    Some(Ok(true)) if *own => held = Some(store),
                    // What is wrong with a store that cannot be looked at, the hand-over finds and says.
                    Some(_) => {}
                    None => {
                        let text = format!("{} does not answer", store.display());
                        return Err(Failure::new(code::STORE_UNUSABLE, text));
                    }
                }
            }
            let Some(held) = held else { return Ok(()) };
            if Instant::now() >= deadline || self.look().process.is_some() {
                let text = format!("a process still uses {}: it is waited for", held.display());
                return Err(Failure::new(code::STORE_IN_USE, text));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn new_token(&self, shared: &Shared) -> Result<Token, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::new("BackendFailed", format!("no token: {}", with_causes(error)))
        };
        let token = Token::generate().map_err(|error| failed(&error))?;
        let hash = token.hash();
        if self.plan.is_attachment() {
            let stored = shared.records.next_token(&self.plan.service, hash.clone());
            stored.await.map_err(|error| failed(&error))?;
        }
        self.update(|inner| {
            inner.tokens.next = Some(hash);
            inner.failure = None;
        });
        Ok(token)
    }

    async fn wait_until_served(
        &self,
        process: &Process,
        reaper: tokio::task::JoinHandle<()>,
    ) -> Result<(), Failure> {
        let settled = |inner: &Inner| {
            inner.phase == Phase::Serving || (inner.failure.is_some() && inner.claimant.is_none())
        };
        let ended = tokio::select! {
            () = self.until(settled) => false,
            () = process.ended() => true,
            () = self.silence() => false,
        };
        if ended {
            // What it said before its end may still be on its way through the hand-over.
            let _ = tokio::time::timeout(
                Duration::from_secs(1),
                self.until(|inner| inner.claimant.is_none()),
            )
            .await;
            let _ = reaper.await;
        }
        let mut inner = self.look();
        if inner.phase == Phase::Serving {
            return Ok(());
        }
        Err(inner.failure.take().unwrap_or_else(|| {
            let text = match process.status() {
                Some(status) => format!("it ended before it served ({status})"),
                None => "it did not serve in time".to_owned(),
            };
            // The log itself goes with the attachment if this was its first start.
            Failure::new("BackendFailed", format!("{text}: {}", last_line(&self.plan.log)))
        }))
    }

    /// Waits until a process that is being started has not got on for a while.
    async fn silence(&self) {
        loop {
            let before = self.look().steps;
            // Connect, hand-over and readiness: each has its own limit of this length.
            tokio::time::sleep(2 * limits::BACKEND_TIME).await;
            if self.look().steps == before {
                return;
            }
        }
    }

    /// Keeps a backend serving until the attachment is removed.
    pub(super) async fn supervise(self: Arc<Self>, shared: Arc<Shared>) {
        let mut delay = Duration::ZERO;
        let mut since = Instant::now();
        loop {
            let process = self.look().process.clone();
            if let Some(process) = process {
                if !self.watch(&process, &mut delay, since).await {
                    return;
                }
            } else if !self.plan.start {
                self.until(|inner| inner.removed || inner.process.is_some()).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = self.until(|inner| inner.removed || inner.process.is_some()) => {}
                }
                let started = self.restart(&shared).await;
                if !started {
                    delay = (2 * delay).clamp(limits::RESTART_DELAY_FIRST, limits::RESTART_DELAY_MOST);
                }
            }
            since = Instant::now();
            if self.look().removed {
                return;
            }
        }
    }

    /// Waits for the end of the process that serves. False if the attachment has been removed.
    async fn watch(self: &Arc<Self>, process: &Arc<Process>, delay: &mut Duration, since: Instant) -> bool {
        loop {
            tokio::select! {
                () = process.ended() => break,
                () = self.until(|inner| inner.removed) => return false,
                () = tokio::time::sleep(limits::WATCH_TIME) => self.look_after(process).await,
            }
        }
        control_socket::remove(&self.plan, process.pid());
        // Nobody tells whether it has handed over before that has been settled.
        drop(self.starting.lock().await);
        self.lost(process);
        if self.look().process.is_some() {
            *delay = Duration::ZERO;
            return !self.look().removed;
        }
        // While it is being detached, its end is expected; if that fails, the loop goes on.
        self.until(|inner| inner.removed || !inner.detaching).await;
        if self.look().removed {
            return false;
        }
        *delay = if since.elapsed() < limits::SHORT_LIFE {
            (2 * *delay).clamp(limits::RESTART_DELAY_FIRST, limits::RESTART_DELAY_MOST)
        } else {
            Duration::ZERO
        };
        log::warn!(
            "{}: process {} has ended; restarting in {delay:?}",
            self.plan.service,
            process.pid()
        );
        true
    }

    /// Looks whether the process and its sockets are as they should be.
    async fn look_after(self: &Arc<Self>, process: &Arc<Process>) {
        let serves = {
            let inner = self.look();
            inner.is_served_by(process) && inner.phase == Phase::Serving
        };
        if serves && process.is_ending() && !process.ended_within(limits::WATCH_TIME).await {
            // The process may have been replaced meanwhile.
            if self.look().is_served_by(process) {
                self.is_stuck(process);
            }
        }
        for session in self.sessions.all() {
            self.sessions.watch_socket(&session).await;
        }
        let served = Arc::clone(self);
        let sweep = move |_: &std::path::Path| control_socket::sweep(&served.plan);
        aside::look(&self.plan.runtime, limits::LOOK_TIME, sweep).await;
    }

    async fn restart(self: &Arc<Self>, shared: &Arc<Shared>) -> bool {
        let _alone = self.starting.lock().await;
        {
            let inner = self.look();
            if inner.removed || inner.process.is_some() {
                return true;
            }
            if inner.detaching {
                return false;
            }
        }
        match self.start(shared).await {
            Ok(()) => true,
            Err(failure) => {
                log::error!("{}: no backend: {failure}", self.plan.service);
                // A virtual machine that connects is better refused than left waiting for one.
                self.sessions.let_go();
                self.update(|inner| {
                    // Unless one has come back meanwhile.
                    if inner.process.is_none() {
                        inner.phase = Phase::Restarting;
                        inner.failure = Some(failure);
                    }
                    inner.process.is_some()
                })
            }
        }
    }
}

/// The last thing that a backend has said.
fn last_line(log: &std::path::Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(limits::BACKEND_WORDS_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(limits::BACKEND_WORDS_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            text.lines().next_back().unwrap_or("it said nothing").to_owned()
        }
        Err(error) => format!("{}: {error}", log.display()),
    }
}
