//! How much of each kind an account may have: what the accounts file says, or [`limits`].

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::limits;

/// Of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) disks: u32,
    pub(crate) instances: u32,
    pub(crate) images: u32,
    pub(crate) backups: u32,
    /// That go on at once: each is a process.
    pub(crate) copies: u32,
    /// Of snapshots: each is a call now and then.
    pub(crate) schedules: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Quota {
            disks: limits::ACCOUNT_DISKS,
            instances: limits::ACCOUNT_INSTANCES,
            images: limits::ACCOUNT_IMAGES,
            backups: limits::ACCOUNT_BACKUPS,
            copies: limits::ACCOUNT_COPIES,
            schedules: limits::ACCOUNT_SCHEDULES,
        }
    }
}

/// Those that the accounts file has, by account.
#[derive(Debug, Default)]
pub(crate) struct Quotas(RwLock<HashMap<String, Quota>>);

impl Quotas {
    pub(crate) fn insert(&mut self, account: String, quota: Quota) {
        let all = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        all.insert(account, quota);
    }

    /// From now on those of another reading of the file count.
    pub(crate) fn replace(&self, new: Quotas) {
        let new = new.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    pub(crate) fn of(&self, account: &str) -> Quota {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(account).copied().unwrap_or_default()
    }
}
