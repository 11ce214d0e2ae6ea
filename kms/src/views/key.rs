//! `GET /v1/keys` and `/v1/keys/{key}`. No call gives key material (rule K07).

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Page, key_names};
use crate::context::Kms;
use crate::context::find::not_found;
use crate::error::Result;
use crate::jobs::key_work;
use sealblk_api::{Key, KeyList};

/// A page of the account's keys.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<KeyList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = keys::list(&mut db, &caller.account, page).await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        keys.push(shown(kms, &mut db, row).await?);
    }
    Ok(KeyList { keys, next })
}

/// One key.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Key> {
    let mut db = kms.catalogue.read().await?;
    let row = keys::find(&mut db, &caller.account, wanted).await?;
    shown(kms, &mut db, row.ok_or_else(|| not_found("key", wanted))?).await
}

async fn shown(kms: &Kms, db: &mut SqliteConnection, row: KeyRow) -> Result<Key> {
    let deletion_days_left = key_work::days_left(&kms.clock.now(), &row);
    Ok(Key {
        deletion_days_left,
        ..answer(db, row).await?
    })
}

/// As the API gives it, but for what changes by itself.
pub(crate) async fn answer(db: &mut SqliteConnection, row: KeyRow) -> Result<Key> {
    Ok(Key {
        aliases: key_names::aliases(db, &row.id).await?,
        tags: key_names::tags(db, &row.id).await?,
        disks: keys::count_disks(db, &row.id).await?.unsigned_abs(),
        deletion_days_left: None,
        id: row.id,
        name: row.name,
        origin: row.origin,
        state: row.state.name().to_owned(),
        region: row.region,
        version: row.version,
        algorithm: "AES-256-GCM".to_owned(),
        deletion: row.deletion,
        created: row.created,
    })
}
