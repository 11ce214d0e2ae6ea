//! `POST /v1/keys/{key}/enable` and `/disable` (rules K08, K11).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::key_state::Event;
use crate::catalogue::{Write, keys};
use crate::context::Kms;
use crate::error::Result;
use crate::keys::change;
use crate::views;
use sealblk_api::Key;

/// Makes a key usable. Again is the same as once.
pub(crate) struct Enable {
    /// Id, name or alias.
    pub(crate) key: String,
}

/// Makes a key unusable: what is attached goes on (rule A06). Again is the same as once.
pub(crate) struct Disable {
    /// Id, name or alias.
    pub(crate) key: String,
}

impl Operation for Enable {
    const CALL: &'static str = "key.enable";
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        change(caller, tx, &self.key, Event::Enable).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        // A rewrapping that was under way goes on.
        kms.key_work.notify_one();
        views::key::show(kms, caller, &id).await
    }
}

impl Operation for Disable {
    const CALL: &'static str = "key.disable";
    const FREES: bool = true;
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        change(caller, tx, &self.key, Event::Disable).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        views::key::show(kms, caller, &id).await
    }
}

async fn change(caller: &Caller, tx: &mut Write, wanted: &str, event: Event) -> Result<String> {
    let key = change::find(caller, tx, wanted).await?;
    let state = key.now().after(event)?;
    keys::set_state(tx, &key.id, state, None).await?;
    Ok(key.id)
}
