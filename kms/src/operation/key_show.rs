//! `GET /v1/keys` and `/v1/keys/{key}`. No call gives key material (rule K07).

use super::{Kms, not_found};
use crate::api::types::{Key, KeyList};
use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::keys::{self, KeyRow};
use crate::error::Result;

/// A page of the account's keys.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<KeyList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = keys::list(&mut db, &caller.account, page).await?;
    Ok(KeyList {
        keys: rows.into_iter().map(Key::from).collect(),
        next,
    })
}

/// One key.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Key> {
    let mut db = kms.catalogue.read().await?;
    let row = keys::find(&mut db, &caller.account, wanted).await?;
    row.map(Key::from).ok_or_else(|| not_found("key", wanted))
}

impl From<KeyRow> for Key {
    fn from(row: KeyRow) -> Self {
        Key {
            id: row.id,
            name: row.name,
            origin: row.origin,
            state: row.state,
            region: row.region,
            version: row.version,
            algorithm: "AES-256-GCM".to_owned(),
            disks: row.disks.unsigned_abs(),
            created: row.created,
        }
    }
}
