//! `GET /v1/keys/{key}/resources` (rule K11).

use crate::audit::Caller;
use crate::catalogue::{Page, keys};
use crate::context::Kms;
use crate::context::find::not_found;
use crate::error::Result;
use sealblk_api::{KeyResource, KeyResources};

/// A page of what the key protects.
pub(crate) async fn list(kms: &Kms, caller: &Caller, wanted: &str, page: &Page) -> Result<KeyResources> {
    let mut db = kms.catalogue.read().await?;
    let key = keys::find(&mut db, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("key", wanted))?;
    let (rows, next) = keys::resources(&mut db, &key.id, page).await?;
    let resource = |row: keys::ResourceRow| KeyResource {
        id: row.id,
        name: row.name,
        kind: row.kind,
        state: row.state,
    };
    Ok(KeyResources {
        resources: rows.into_iter().map(resource).collect(),
        next,
    })
}
