//! `GET` and `POST /v1/keys/{key}/rewrap`, and the rewrapping itself (rule K12): data keys and salts that are under an
//! older version of their master key are put under the newest, a few in each transaction; a version under which nothing
//! is any more is retired. What is left to do is in the catalogue alone, so a crash only interrupts it.

use super::{Kms, Operation, key_change, not_found};
use crate::api::types::Rewrapping;
use crate::audit::{self, Caller, Decision};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Write, lineages};
use crate::error::Result;
use crate::keystate::Event;
use crate::limits;

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
        let key = key_change::find(caller, tx, &self.key).await?;
        // Opens and wraps as a rotation does.
        key.now().after(Event::Rotate)?;
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Rewrapping> {
        kms.key_work.notify_one();
        status(kms, caller, &id).await
    }
}

/// How far the rewrapping of a key is.
///
/// # Errors
/// [`crate::error::Code::NotFound`].
pub(crate) async fn status(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Rewrapping> {
    let mut db = kms.catalogue.read().await?;
    let key = keys::find(&mut db, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("key", wanted))?;
    let version = key.version.unwrap_or_default();
    let (done, total) = lineages::rewrapped(&mut db, &key.id, version).await?;
    Ok(Rewrapping {
        id: key.id.clone(),
        name: key.name,
        version,
        done: done.unsigned_abs(),
        total: total.unsigned_abs(),
        versions: keys::living_versions(&mut db, &key.id).await?,
    })
}

/// Rewraps what has to be, of every account.
///
/// # Errors
/// The last of those that occurred; the other keys are rewrapped.
pub(super) async fn all(kms: &Kms) -> Result<()> {
    let keys = {
        let mut db = kms.catalogue.read().await?;
        keys::to_rewrap(&mut db).await?
    };
    let mut outcome = Ok(());
    for key in keys {
        outcome = rewrap(kms, &key).await.and(outcome);
    }
    outcome
}

async fn rewrap(kms: &Kms, key: &KeyRow) -> Result<()> {
    while !batch(kms, key).await? {
        if *kms.ending.try_read().as_deref().unwrap_or(&true) {
            return Ok(()); // The next start goes on.
        }
        // Calls that wait for the write lock come first.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// One transaction's work; whether nothing is left.
async fn batch(kms: &Kms, key: &KeyRow) -> Result<bool> {
    let mut tx = kms.catalogue.write().await?;
    let now = keys::find(&mut tx, &key.account, &key.id).await?;
    // The key may have been disabled, or rotated once more.
    let Some((key, newest)) = now.and_then(|key| key.version.map(|version| (key, version))) else {
        return Ok(true);
    };
    if key.now().usable().is_err() {
        return Ok(true);
    }
    let rows = lineages::outdated(&mut tx, &key.id, newest, limits::REWRAP_BATCH).await?;
    let finished = rows.is_empty();
    for row in rows {
        let row = kms.custody.rewrap(&mut tx, &key, row, newest).await?;
        lineages::rewrap(&mut tx, &row, newest).await?;
    }
    let retired = if finished {
        keys::retire(&mut tx, &key.id, newest).await?
    } else {
        0
    };
    if retired > 0 {
        let caller = kms.own_caller(&key.account)?;
        audit::append(&mut tx, &caller, "key.retire", &key.id, Decision::Allowed).await?;
    }
    tx.commit().await?;
    if retired > 0 {
        kms.catalogue.forget_deleted().await;
        log::info!("key {}: {retired} older versions are retired", key.id);
    }
    Ok(finished)
}
