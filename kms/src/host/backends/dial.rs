//! Dials the processes of a service that have lost the KMS: each waits at a socket of its own in the runtime directory.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use sealblk_proto::channel::Channel;
use sealblk_proto::control;

use super::control_socket::{is_alive, is_refusal, pids, remove_file};
use super::handover::take_back;
use super::served::Served;
use super::shared::Shared;
use crate::limits;

/// The task that dials the processes of one service.
struct Dialler {
    served: Arc<Served>,
    shared: Arc<Shared>,
    exchanges: Mutex<Exchanges>,
}

#[derive(Default)]
struct Exchanges {
    /// Numbers, as the sockets' names have them, of the processes with which there is one.
    going_on: HashSet<i32>,
    /// Processes of which it has been logged that dialling failed, since one has been reached.
    failed: HashSet<i32>,
}

/// Looks for processes whenever none is connected, until the service is removed.
pub(super) async fn run(served: Arc<Served>, shared: Arc<Shared>) {
    let dialler = Arc::new(Dialler {
        served: Arc::clone(&served),
        shared,
        exchanges: Mutex::default(),
    });
    let mut delay = limits::DIAL_DELAY_FIRST;
    loop {
        let connection = served.look().connection.clone();
        if let Some(connection) = connection.filter(|connection| !connection.is_dead()) {
            tokio::select! {
                () = connection.lost() => {}
                () = served.until(|inner| inner.removed) => {}
            }
            delay = limits::DIAL_DELAY_FIRST;
            dialler.exchanges().failed.clear();
        }
        if served.look().removed {
            return;
        }
        // Where nobody has been given the store, nobody serves.
        if served.look().backend.is_some() {
            let dialler = Arc::clone(&dialler);
            let _ = tokio::task::spawn_blocking(move || dialler.dial_all()).await;
        }
        let is_over = served.until(|inner| inner.removed || inner.is_connected());
        if tokio::time::timeout(delay, is_over).await.is_err() {
            delay = (2 * delay).min(limits::DIAL_DELAY_MOST);
        }
    }
}

impl Dialler {
    /// Dials everybody, and waits for nobody: that is done by a thread for each that is connected.
    fn dial_all(self: &Arc<Self>) {
        let (last, claimant) = {
            let inner = self.served.look();
            let claimant = inner.claimant.as_ref().map(|claimant| claimant.process.pid());
            (inner.backend.as_ref().map(|backend| backend.pid), claimant)
        };
        let runtime = &self.served.plan.runtime;
        for pid in pids(runtime, last)
            .into_iter()
            .filter(|pid| Some(*pid) != claimant)
        {
            // The process that was given the store waits for none of the others.
            if let Some(exchange) = Exchange::begin(self, pid, Some(pid) == last) {
                self.dial(exchange);
            }
        }
    }

    fn dial(&self, exchange: Exchange) {
        let pid = exchange.pid;
        let path = self.served.plan.runtime.join(control::name(pid.unsigned_abs()));
        let dialled = Channel::connect_at_once(&path).and_then(|channel| {
            let uid = channel.peer()?.uid;
            (uid == self.served.plan.uid)
                .then_some(channel)
                .ok_or_else(|| io::Error::other(format!("it is of user {uid}, not {}", self.served.plan.uid)))
        });
        match dialled {
            Ok(channel) => {
                let started = thread::Builder::new()
                    .name("hand-over".into())
                    .spawn(move || exchange.carry_out(channel));
                if let Err(error) = started {
                    log::error!("no thread for a hand-over: {error}");
                }
            }
            Err(error) if is_refusal(&error) => {
                // A process that is just starting does not listen yet.
                if !is_alive(pid) {
                    remove_file(&path);
                }
            }
            Err(error) => exchange.failed(&error.to_string()),
        }
    }

    fn exchanges(&self) -> MutexGuard<'_, Exchanges> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One with a process; over when dropped, also by a panic.
struct Exchange {
    dialler: Arc<Dialler>,
    pid: i32,
}

impl Exchange {
    /// None if there is an exchange with this process, or there are as many as there may be and this one is not to go before.
    fn begin(dialler: &Arc<Dialler>, pid: i32, goes_before: bool) -> Option<Self> {
        let mut exchanges = dialler.exchanges();
        let is_room = goes_before || exchanges.going_on.len() < limits::HANDSHAKES;
        (is_room && exchanges.going_on.insert(pid)).then(|| Exchange {
            dialler: Arc::clone(dialler),
            pid,
        })
    }

    fn carry_out(self, channel: Channel) {
        let Dialler { served, shared, .. } = &*self.dialler;
        if let Err(failure) = take_back(served, shared, channel) {
            self.failed(&failure.to_string());
        }
    }

    /// Logs why dialling has failed, once: it will be tried again.
    fn failed(&self, why: &str) {
        let service = &self.dialler.served.plan.service;
        let mut exchanges = self.dialler.exchanges();
        if exchanges.failed.len() >= limits::CONTROL_SOCKETS {
            exchanges.failed.clear();
        }
        let level = match exchanges.failed.insert(self.pid) {
            true => log::Level::Warn,
            false => log::Level::Debug,
        };
        log::log!(level, "{service}: process {} was dialled: {why}", self.pid);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.dialler.exchanges().going_on.remove(&self.pid);
    }
}
