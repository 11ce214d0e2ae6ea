//! `GET /v1/usage` and `GET /v1/audit` (rules M01, M02 and M04).

use crate::audit::{self, Caller};
use crate::catalogue::audit_records::Wanted;
use crate::catalogue::{Db, accounts, disks, instances, keys, usage};
use crate::context::Kms;
use crate::error::Result;
use sealblk_api::{AuditPage, Usage, UsageRow};

/// Metered calls of the account, and its balance.
pub(crate) async fn usage(kms: &Kms, caller: &Caller) -> Result<Usage> {
    let mut db = kms.catalogue.read().await?;
    let account = accounts::find(&mut db, &caller.account).await?;
    let rows = usage::of_account(&mut db, &caller.account).await?;
    Ok(Usage {
        balance: account.map_or(0, |row| row.balance.unsigned_abs()),
        id: caller.account.clone(),
        name: caller.account.clone(),
        usage: rows.into_iter().map(row).collect(),
    })
}

fn row(row: usage::UsageRow) -> UsageRow {
    let id = format!("{}.{}.{}", row.month, row.region, row.kind);
    UsageRow {
        name: id.clone(),
        id,
        month: row.month,
        region: row.region,
        kind: row.kind,
        calls: row.calls.unsigned_abs(),
        charged: row.charged.unsigned_abs(),
    }
}

/// Which records are asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked<'a> {
    /// Those after this position, so many at most.
    pub(crate) after: u64,
    pub(crate) limit: u32,
    /// Ids, or names that are somebody's now.
    pub(crate) disk: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) instance: Option<&'a str>,
    pub(crate) request: Option<&'a str>,
    /// Times of the catalogue's form.
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
}

/// A page of the audit log.
pub(crate) async fn audit(kms: &Kms, caller: &Caller, asked: Asked<'_>) -> Result<AuditPage> {
    let mut db = kms.catalogue.read().await?;
    let limit = asked.limit;
    let wanted = wanted(&mut db, &caller.account, asked).await?;
    let mut records = audit::list(&mut db, &caller.account, wanted).await?;
    let more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().map(|record| record.seq).filter(|_| more);
    Ok(AuditPage {
        audit: records,
        next,
        archived: None,
    })
}

/// What has been deleted is found by its id.
async fn wanted(db: &mut Db, account: &str, asked: Asked<'_>) -> Result<Wanted> {
    let mut ids = Vec::new();
    if let Some(named) = asked.disk {
        let found = disks::find(db, account, named).await?;
        ids.push(found.map_or_else(|| named.to_owned(), |row| row.id));
    }
    if let Some(named) = asked.key {
        let found = keys::find(db, account, named).await?;
        ids.push(found.map_or_else(|| named.to_owned(), |row| row.id));
    }
    if let Some(named) = asked.instance {
        let found = instances::find(db, account, named).await?;
        ids.push(found.map_or_else(|| named.to_owned(), |row| row.id));
    }
    ids.extend(asked.request.map(str::to_owned));
    let all = Wanted::after(asked.after, asked.limit + 1);
    Ok(Wanted {
        ids,
        since: asked.since.unwrap_or(all.since),
        until: asked.until.unwrap_or(all.until),
        ..all
    })
}
