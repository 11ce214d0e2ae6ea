//! `POST /v1/keys/{key}/schedule-deletion` and `/cancel-deletion` (rule K11).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::key_state::Event;
use crate::catalogue::keys::{self, Deletion};
use crate::catalogue::{Write, bin};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::keys::change;
use crate::keys::deletion;
use crate::timekeeper::DAY;
use crate::views;
use crate::{clock, limits};
use sealblk_api::{self, Key};

/// Destroys a key after some days, unless that is cancelled. From now on it cannot be used for anything new.
pub(crate) struct ScheduleDeletion {
    /// Id, name or alias.
    pub(crate) key: String,
    /// The call's body.
    pub(crate) options: sealblk_api::ScheduleDeletion,
}

/// Keeps a key that was going to be destroyed. It is Disabled then.
pub(crate) struct CancelDeletion {
    /// Id, name or alias.
    pub(crate) key: String,
}

impl Operation for ScheduleDeletion {
    const CALL: &'static str = "key.schedule-deletion";
    const FREES: bool = true;
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let key = change::find(caller, tx, &self.key).await?;
        let state = key.now().after(Event::ScheduleDeletion)?;
        let (least, most) = (limits::DELETION_DAYS_LEAST, kms.deletion_days_most);
        let days = self.options.days.unwrap_or(most);
        caller.facts.note("days", days);
        if !(least..=most).contains(&days) {
            let text = format!("{days} days: a key is destroyed after {least} to {most} days");
            return Err(Error::new(Code::InvalidDays, text));
        }
        let protected = keys::count_resources(tx, &key.id).await?;
        if protected > 0 && !self.options.acknowledge {
            let binned = match bin::count_of_key(tx, &key.id).await? {
                0 => String::new(),
                disks => format!(" ({disks} of them in the bin)"),
            };
            let text = format!(
                "key {} protects {protected} objects{binned}, whose data nobody can read after its deletion: see `sealctl key \
                 resources {0}`, and repeat with --acknowledge if they may be lost",
                key.id
            );
            return Err(Error::new(Code::KeyInUse, text));
        }
        let times = kms.clock.now();
        let seen = times.seen + i64::from(days) * DAY;
        let day = clock::at(times.wall_at(seen));
        caller.facts.note("day", day.as_str());
        let deletion = Deletion { day, seen };
        keys::set_state(tx, &key.id, state, Some(&deletion)).await?;
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        // The first alarm is due.
        kms.key_work.notify_one();
        views::key::show(kms, caller, &id).await
    }
}

impl Operation for CancelDeletion {
    const CALL: &'static str = "key.cancel-deletion";
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let key = change::find(caller, tx, &self.key).await?;
        let has_material = key.version.is_some();
        let state = key.now().after(Event::CancelDeletion { has_material })?;
        // On its day it is destroyed, even if nobody has come to it yet.
        if deletion::is_due(&kms.clock.now(), &key) {
            let text = format!("the deletion day of key {} has come", key.id);
            return Err(Error::new(Code::KeyStateInvalid, text));
        }
        keys::set_state(tx, &key.id, state, None).await?;
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        views::key::show(kms, caller, &id).await
    }
}
