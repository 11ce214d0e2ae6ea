//! `POST /v1/keys/{key}/rotate` (rule K12).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::key_state::Event;
use crate::catalogue::kinds::KeyOrigin;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::keys::change;
use crate::views;
use sealblk_api::Key;

/// Gives a key a new version at once. What older versions wrap is put under it in the background; the data is not
/// encrypted anew, and disks go on.
pub(crate) struct Rotate {
    /// Id, name or alias.
    pub(crate) key: String,
}

impl Operation for Rotate {
    const CALL: &'static str = "key.rotate";
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let key = change::find(caller, tx, &self.key).await?;
        key.now().after(Event::Rotate)?;
        if key.origin == KeyOrigin::Imported {
            let text = format!(
                "the material of key {} was imported and cannot be made here: create another key with material of \
                 yours, and disks with it",
                key.id
            );
            return Err(Error::new(Code::KeyImported, text));
        }
        let version = key.version.unwrap_or_default() + 1;
        caller.facts.note("key_version", version);
        kms.keyring
            .new_version(tx, &key.account, &key.id, version)
            .await?;
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        kms.key_work.notify_one();
        views::key::show(kms, caller, &id).await
    }
}
