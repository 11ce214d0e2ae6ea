//! What all changes of keys have in common.

use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::kinds::KeyOrigin;
use crate::error::{Code, Error, Result, not_found};
use crate::profile::Profile;

/// The caller's key of this id, name or alias, if it is one that can be changed.
///
/// # Errors
/// [`Code::NotFound`]; [`Code::ServiceKeyFixed`] (rule K03).
pub(crate) async fn find(caller: &Caller, tx: &mut Write, wanted: &str) -> Result<KeyRow> {
    let key = keys::find(tx, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("key", wanted))?;
    caller.facts.note("key", key.id.as_str());
    caller.facts.note_if("key_version", key.version);
    if key.origin == KeyOrigin::Service {
        let text = format!(
            "key {} is the service's own and is never changed: create a key of your own, and disks with it",
            key.id
        );
        return Err(Error::new(Code::ServiceKeyFixed, text));
    }
    Ok(key)
}

/// Rule K08: whether the profile has customer keys.
///
/// # Errors
/// [`Code::CustomerKeysNotOffered`].
pub(crate) fn check_offered(profile: &Profile) -> Result<()> {
    if profile.customer_keys {
        return Ok(());
    }
    let text = format!(
        "profile {} has no keys of one's own: encrypted disks use the service key",
        profile.name
    );
    Err(Error::new(Code::CustomerKeysNotOffered, text))
}
