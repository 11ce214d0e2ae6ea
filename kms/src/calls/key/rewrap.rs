//! `GET` and `POST /v1/keys/{key}/rewrap`, and the rewrapping itself (rule K12): data keys and salts that are under an
//! older version of their master key are put under the newest, a few in each transaction; a version under which nothing
//! is any more is retired. What is left to do is in the catalogue alone, so a crash only interrupts it.

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::key_state::Event;
use crate::context::Kms;
use crate::error::Result;
use crate::keys::change;
use crate::views;
use sealblk_api::Rewrapping;

/// Goes on with the rewrapping of a key now, should it have stopped.
pub(crate) struct Rewrap {
    /// Id, name or alias.
    pub(crate) key: String,
}

impl Operation for Rewrap {
    const CALL: &'static str = "key.rewrap";
    type Decided = String;
    type Answer = Rewrapping;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let key = change::find(caller, tx, &self.key).await?;
        // Opens and wraps as a rotation does.
        key.now().after(Event::Rotate)?;
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Rewrapping> {
        kms.key_work.notify_one();
        views::key::rewrapping(kms, caller, &id).await
    }
}
