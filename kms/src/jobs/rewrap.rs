//! Rewrapping (rule K12): data keys and salts that are under an older version of their master key are put under the newest, a
//! few in each transaction; a version under which nothing is any more is retired. What is left to do is in the catalogue alone,
//! so a crash only interrupts it.

use crate::audit::{self, Decision};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Write, lineages};
use crate::context::Kms;
use crate::error::{Code, Result};
use crate::limits;

/// Rewraps what has to be, of every account.
///
/// # Errors
/// The last of those that occurred; the other keys are rewrapped.
pub(crate) async fn all(kms: &Kms) -> Result<()> {
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
    let mut after = String::new();
    let mut outcome = Ok(());
    loop {
        let batch = batch(kms, key, &after).await?;
        outcome = batch.outcome.and(outcome);
        let Some(last) = batch.last else { break };
        after = last;
        if *kms.ending.try_read().as_deref().unwrap_or(&true) {
            return outcome; // The next start goes on.
        }
        // Calls that wait for the write lock come first.
        tokio::task::yield_now().await;
    }
    retire(kms, key).await.and(outcome)
}

/// What has come of a transaction.
struct Batch {
    /// The last one that was looked at; none if there was nothing to do.
    last: Option<String>,
    /// Why some of them were not rewrapped.
    outcome: Result<()>,
}

/// One transaction's work: those that come after an id. What is damaged is passed over, and stays under its version.
async fn batch(kms: &Kms, key: &KeyRow, after: &str) -> Result<Batch> {
    let mut done = Batch {
        last: None,
        outcome: Ok(()),
    };
    let mut tx = kms.catalogue.write().await?;
    let Some((key, newest)) = rewrappable(&mut tx, key).await? else {
        return Ok(done);
    };
    let rows = lineages::outdated(&mut tx, &key.id, newest, after, limits::REWRAP_BATCH).await?;
    if rows.is_empty() {
        return Ok(done);
    }
    let mut rewrapper = kms.keyring.rewrapper(&mut tx, &key, newest).await?;
    for row in rows {
        match rewrapper.rewrap(&mut tx, &row).await {
            Ok(rewrapped) => lineages::rewrap(&mut tx, &rewrapped, newest).await?,
            Err(error) if error.code() == Code::WrappedKeyInvalid => {
                log::error!("key {}: {}: {}", key.id, row.id, error.full_message());
                done.outcome = Err(error);
            }
            Err(error) => return Err(error),
        }
        done.last = Some(row.id);
    }
    tx.commit().await?;
    Ok(done)
}

/// The key as it is now, with its newest version: it may have been disabled, or rotated once more.
async fn rewrappable(tx: &mut Write, key: &KeyRow) -> Result<Option<(KeyRow, u32)>> {
    let now = keys::find(tx, &key.account, &key.id).await?;
    let usable = now.filter(|key| key.now().usable().is_ok());
    Ok(usable.and_then(|key| key.version.map(|version| (key, version))))
}

/// Retires the versions under which nothing is any more.
async fn retire(kms: &Kms, key: &KeyRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    let Some((key, newest)) = rewrappable(&mut tx, key).await? else {
        return Ok(());
    };
    let retired = keys::retire(&mut tx, &key.id, newest).await?;
    if retired == 0 {
        return Ok(());
    }
    let caller = kms.own_caller(&key.account)?;
    caller.facts.note("key", key.id.as_str());
    caller.facts.note("key_version", newest);
    caller.facts.note("retired", retired);
    audit::append(&mut tx, &caller, "key.retire", &key.id, Decision::Allowed).await?;
    tx.commit().await?;
    kms.catalogue.forget_destroyed().await;
    log::info!("key {}: {retired} older versions are retired", key.id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::key::enable::Disable;
    use crate::calls::key::rotate::Rotate;
    use crate::calls::run;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::behind;
    use crate::profile::KeyScope;
    use crate::views;
    use sealblk_api::{CreateDisk, CreateKey};

    fn key() -> String {
        "mine".to_owned()
    }

    async fn with_key() -> World {
        let world = World::new().await;
        let create = CreateKey {
            name: key(),
            import: false,
        };
        run(&world.kms, caller(), create).await.unwrap();
        world
    }

    async fn to_rewrap(world: &World) -> KeyRow {
        run(&world.kms, caller(), Rotate { key: key() }).await.unwrap();
        let mut db = world.kms.catalogue.read().await.unwrap();
        keys::to_rewrap(&mut db).await.unwrap().pop().unwrap()
    }

    /// Where all lineages under a key share one.
    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k12_a_version_that_a_shared_data_key_needs_is_not_retired() {
        let world = with_key().await;
        {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            let row = keys::find(&mut tx, "default", "mine").await.unwrap().unwrap();
            let keyring = &world.kms.keyring;
            let made = keyring
                .new_lineage(&mut tx, "default", &row, KeyScope::Region)
                .await;
            made.unwrap();
            // A data key that is damaged is passed over.
            let change = "UPDATE data_keys SET wrapped_key = zeroblob(length(wrapped_key))";
            behind::run(&mut tx, change).await.unwrap();
            tx.commit().await.unwrap();
        }
        let listed = to_rewrap(&world).await;
        let outcome = rewrap(&world.kms, &listed).await.map_err(|error| error.code());
        assert_eq!(outcome, Err(Code::WrappedKeyInvalid));
        let state = views::key::rewrapping(&world.kms, &caller(), "mine")
            .await
            .unwrap();
        assert_eq!((state.done, state.versions), (1, vec![1, 2]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_a05_k12_a_key_that_was_disabled_since_it_was_listed_rewraps_nothing() {
        let world = with_key().await;
        let disk = CreateDisk {
            key: Some(key()),
            ..new_disk(None)
        };
        run(&world.kms, caller(), disk).await.unwrap();
        let listed = to_rewrap(&world).await;
        run(&world.kms, caller(), Disable { key: key() }).await.unwrap();
        rewrap(&world.kms, &listed).await.unwrap();
        let state = views::key::rewrapping(&world.kms, &caller(), "mine")
            .await
            .unwrap();
        assert_eq!((state.done, state.total, state.versions), (0, 1, vec![1, 2]));
    }
}
