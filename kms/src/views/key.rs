//! `GET /v1/keys` and `/v1/keys/{key}`. No call gives key material (rule K07).

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::key_names::{self, KeyNames};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::lineages;
use crate::context::Kms;
use crate::context::find::not_found;
use crate::error::Result;
use crate::keys::deletion;
use sealblk_api::{Key, KeyList, Rewrapping};

/// A page of the account's keys.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<KeyList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = keys::list(&mut db, &caller.account, page).await?;
    let mut names = key_names::of_keys(&mut db, rows.iter().map(|row| row.id.as_str())).await?;
    let keys = rows.into_iter().map(|row| {
        let names = names.remove(&row.id).unwrap_or_default();
        shown(kms, row, names)
    });
    Ok(KeyList {
        keys: keys.collect(),
        next,
    })
}

/// One key.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Key> {
    let mut db = kms.catalogue.read().await?;
    let row = keys::find(&mut db, &caller.account, wanted).await?;
    let row = row.ok_or_else(|| not_found("key", wanted))?;
    let names = names_of(&mut db, &row).await?;
    Ok(shown(kms, row, names))
}

fn shown(kms: &Kms, row: KeyRow, names: KeyNames) -> Key {
    let deletion_days_left = deletion::days_left(&kms.clock.now(), &row);
    Key {
        deletion_days_left,
        ..named(row, names)
    }
}

/// As the API gives it, but for what changes by itself.
pub(crate) async fn answer(db: &mut SqliteConnection, row: KeyRow) -> Result<Key> {
    let names = names_of(db, &row).await?;
    Ok(named(row, names))
}

async fn names_of(db: &mut SqliteConnection, row: &KeyRow) -> Result<KeyNames> {
    let names = key_names::of_keys(db, [row.id.as_str()]).await?;
    Ok(names.into_values().next().unwrap_or_default())
}

fn named(row: KeyRow, names: KeyNames) -> Key {
    Key {
        aliases: names.aliases,
        tags: names.tags,
        disks: row.disks.unsigned_abs(),
        deletion_days_left: None,
        id: row.id,
        name: row.name,
        origin: row.origin.to_string(),
        state: row.state.name().to_owned(),
        region: row.region,
        version: row.version,
        algorithm: "AES-256-GCM".to_owned(),
        deletion: row.deletion,
        former_name: row.former_name,
        created: row.created,
    }
}

/// How far the rewrapping of a key is.
///
/// # Errors
/// [`crate::error::Code::NotFound`].
pub(crate) async fn rewrapping(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Rewrapping> {
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
