//! What keeps an account's keys from being used for something new, besides their states: what is attached goes on (rule A06), and
//! once detached could not be attached again (rule A07).

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use crate::catalogue::key_state::KeyState;
use crate::catalogue::meta;
use crate::context::Kms;
use crate::error::Result;
use crate::profile::Gate;

/// Of one account, now.
#[derive(Debug, Default)]
pub(crate) struct Risks {
    /// The disk service may not use the account's keys (rule K02).
    is_revoked: bool,
    /// Months that have not been paid and that the balance does not suffice for, by key (rule M03).
    unpaid: BTreeMap<String, String>,
}

impl Risks {
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn of(kms: &Kms, db: &mut SqliteConnection, account: &str) -> Result<Self> {
        Ok(Risks {
            is_revoked: kms.profile.gate == Gate::Grant && !meta::is_granted(db, account).await?,
            unpaid: kms.fees().unpaid(db, account).await?.into_iter().collect(),
        })
    }

    /// Why the key cannot be used for something new, a clause; none if it can.
    pub(crate) fn obstacle(&self, key: &str, state: KeyState) -> Option<String> {
        if state != KeyState::Enabled {
            return Some(format!("key {key} is {}", state.name()));
        }
        if let Some(months) = self.unpaid.get(key) {
            return Some(format!("the fee of key {key} has not been paid for {months}"));
        }
        self.is_revoked
            .then(|| format!("the grant of the KMS was revoked, and with it the use of key {key}"))
    }

    /// The keys whose fee has not been paid, each with the months.
    pub(crate) fn unpaid(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unpaid.iter().map(|(key, months)| (&**key, &**months))
    }
}
