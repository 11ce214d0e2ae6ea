//! What was found of virtual machines that run with encrypted disks: local storage that came after the attach (rule A03).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock;

/// Local storage that a virtual machine can write to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) account: String,
    /// A sentence with what to do.
    pub(crate) text: String,
    /// RFC 3339.
    pub(crate) since: String,
}

/// What is known, and which machines are to be asked out of lock.
#[derive(Default)]
pub(crate) struct Machines {
    known: Mutex<Known>,
    /// Told when a process has been started.
    pub(crate) wake: Notify,
}

#[derive(Default)]
struct Known {
    /// By instance.
    found: BTreeMap<String, Found>,
    /// Services whose process was started since they were taken last.
    started: BTreeSet<String>,
}

impl Machines {
    /// A process of a service has been given the store.
    pub(crate) fn started(&self, service: &str) {
        self.look().started.insert(service.to_owned());
        self.wake.notify_one();
    }

    /// The services whose process was started, once.
    pub(crate) fn take_started(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.look().started)
    }

    /// An instance's machine can write to local storage; whether that is new.
    pub(crate) fn found(&self, instance: &str, account: &str, text: &str) -> bool {
        let mut known = self.look();
        let before = known.found.get_mut(instance);
        if let Some(before) = before.filter(|before| before.text == text) {
            before.account = account.to_owned();
            return false;
        }
        let found = Found {
            account: account.to_owned(),
            text: text.to_owned(),
            since: clock::now(),
        };
        known.found.insert(instance.to_owned(), found);
        true
    }

    /// An instance's machine can write to none, or does not run.
    pub(crate) fn clean(&self, instance: &str) {
        self.look().found.remove(instance);
    }

    /// Forgets the instances that are none of these.
    pub(crate) fn keep_only(&self, instances: &BTreeSet<String>) {
        self.look()
            .found
            .retain(|instance, _| instances.contains(instance));
    }

    /// What was found of an account's machines.
    pub(crate) fn of_account(&self, account: &str) -> Vec<Found> {
        let known = self.look();
        let own = known.found.values().filter(|found| found.account == account);
        own.cloned().collect()
    }

    fn look(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
