//! `POST /v1/keys` (rules K08, K10, M03).

use std::sync::Arc;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::calls::idempotency::Creates;
use crate::catalogue::Write;
use crate::catalogue::key_state::KeyState;
use crate::catalogue::keys::{self, NewKey};
use crate::catalogue::kinds::KeyOrigin;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::keys::change;
use crate::limits;
use crate::views;
use sealblk_api::{CreateKey, Key};

impl Operation for CreateKey {
    const CALL: &'static str = "key.create";
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.name
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        change::check_offered(kms.profile)?;
        id::check_name(&self.name)?;
        let account = &caller.account;
        keys::free_name(tx, account, &self.name).await?;
        if keys::find(tx, account, &self.name).await?.is_some() {
            let text = format!("a key has the name or alias {:?}: choose another name", self.name);
            return Err(Error::new(Code::NameTaken, text));
        }
        if keys::count_customer(tx, account).await?.unsigned_abs() >= limits::CUSTOMER_KEYS as u64 {
            let text = format!(
                "account {account} has {} keys, and cannot have more: delete one that is not needed",
                limits::CUSTOMER_KEYS
            );
            return Err(Error::new(Code::TooMany, text));
        }
        let id = id::new(Kind::Key)?;
        caller.facts.note("key", id.as_str());
        let (origin, state) = if self.import {
            (KeyOrigin::Imported, KeyState::PendingImport)
        } else {
            (KeyOrigin::Customer, KeyState::Enabled)
        };
        let key = NewKey {
            id: &id,
            account,
            region: &kms.meta.region,
            name: &self.name,
            origin,
            state,
        };
        keys::insert(tx, &key).await?;
        if !self.import {
            kms.keyring.new_version(tx, account, &id, 1).await?;
        }
        kms.fees().pay_first(tx, account, &id).await?;
        Ok(id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        views::key::show(kms, caller, &id).await
    }
}

impl Creates for CreateKey {
    fn created(id: &String) -> &str {
        id
    }

    async fn present(kms: &Arc<Kms>, caller: &Caller, id: &str) -> Result<Key> {
        views::key::show(kms, caller, id).await
    }
}
