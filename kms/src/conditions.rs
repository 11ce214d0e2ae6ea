//! What is not as it should be with the KMS as a whole, for as long as it lasts: `kms status` shows it to every account.
//!
//! Whoever looks after something raises its condition here, and clears it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;

/// What can be wrong. Its name is stable: machines read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// The wall clock went another way than the time that passed.
    ClockJumped,
    /// The audit log is not what was written.
    AuditBroken,
    /// A sink of the audit log takes no records.
    AuditSinkFailed,
    /// The catalogue is not the file that is open.
    CatalogueReplaced,
    /// The root key that a start would find is missing or another one.
    RootKeyReplaced,
    /// Others than its owner can reach the root key.
    RootKeyPermissions,
    /// `serve --backup-to` cannot write.
    BackupFailed,
    /// `serve --backup-to` cannot remove what it has written earlier.
    BackupsNotRemoved,
    /// A file system that disks or the catalogue are on has little room.
    LittleRoom,
    /// What was begun cannot be ended, since this version cannot read what it is.
    IntentUnreadable,
    /// Much is used of the room that the catalogue keeps for itself on a full file system.
    ReserveUsed,
}

impl Condition {
    /// As it stands in [`sealblk_api::Condition::code`].
    pub(crate) fn name(self) -> &'static str {
        match self {
            Condition::ClockJumped => "ClockJumped",
            Condition::AuditBroken => "AuditBroken",
            Condition::AuditSinkFailed => "AuditSinkFailed",
            Condition::CatalogueReplaced => "CatalogueReplaced",
            Condition::RootKeyReplaced => "RootKeyReplaced",
            Condition::RootKeyPermissions => "RootKeyPermissions",
            Condition::BackupFailed => "BackupFailed",
            Condition::BackupsNotRemoved => "BackupsNotRemoved",
            Condition::LittleRoom => "LittleRoom",
            Condition::IntentUnreadable => "IntentUnreadable",
            Condition::ReserveUsed => "ReserveUsed",
        }
    }
}

/// The conditions that hold now.
#[derive(Default)]
pub(crate) struct Conditions(Mutex<BTreeMap<Condition, Raised>>);

struct Raised {
    text: String,
    since: String,
}

impl Conditions {
    /// Notes that a condition holds, with a sentence that says what to do. The log has it once, however often it is raised.
    pub(crate) fn raise(&self, condition: Condition, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.lock();
        if let Some(raised) = all.get_mut(&condition) {
            raised.text = text;
            return;
        }
        log::warn!("degraded: {}: {text}", condition.name());
        let since = clock::now();
        all.insert(condition, Raised { text, since });
    }

    /// Notes that a condition does not hold, or not any more.
    pub(crate) fn clear(&self, condition: Condition) {
        if self.lock().remove(&condition).is_some() {
            log::info!("no longer degraded: {}", condition.name());
        }
    }

    /// The conditions that hold now, as the API gives them.
    pub(crate) fn all(&self) -> Vec<sealblk_api::Condition> {
        let all = self.lock();
        all.iter()
            .map(|(condition, raised)| sealblk_api::Condition {
                code: condition.name().to_owned(),
                message: raised.text.clone(),
                since: Some(raised.since.clone()),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Condition, Raised>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_since_it_was_first_raised_until_it_is_cleared() {
        let conditions = Conditions::default();
        conditions.raise(Condition::ClockJumped, "one");
        let since = conditions.all()[0].since.clone();
        std::thread::sleep(std::time::Duration::from_millis(2));
        conditions.raise(Condition::ClockJumped, "two");
        let all = conditions.all();
        assert_eq!((all.len(), all[0].message.as_str()), (1, "two"));
        assert_eq!(all[0].since, since);
        conditions.clear(Condition::ClockJumped);
        assert!(conditions.all().is_empty());
    }
}
