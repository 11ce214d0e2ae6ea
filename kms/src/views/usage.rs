//! `GET /v1/usage` and `GET /v1/audit` (rules M01, M02 and M04).

use crate::audit::{self, Caller};
use crate::catalogue::{accounts, usage};
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

/// A page of the audit log.
pub(crate) async fn audit(kms: &Kms, caller: &Caller, after: u64, limit: u32) -> Result<AuditPage> {
    let mut db = kms.catalogue.read().await?;
    let mut records = audit::list(&mut db, &caller.account, after, limit + 1).await?;
    let more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().map(|record| record.seq).filter(|_| more);
    Ok(AuditPage {
        audit: records,
        next,
        archived: None,
    })
}
