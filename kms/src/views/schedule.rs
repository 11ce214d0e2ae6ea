//! `GET /v1/snapshot-schedules`, and what `kms status` says of those that fail.

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::schedules::{self, ScheduleRow};
use crate::context::Kms;
use crate::error::Result;
use crate::limits;
use crate::timekeeper::Times;
use sealblk_api::{Schedule, ScheduleList};

/// A page of the account's schedules.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<ScheduleList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = schedules::list(&mut db, &caller.account, page).await?;
    let times = kms.clock.now();
    Ok(ScheduleList {
        schedules: rows.into_iter().map(|row| answer(row, &times)).collect(),
        next,
    })
}

/// A sentence about each of the account's schedules whose last attempt failed.
pub(crate) async fn warnings(db: &mut SqliteConnection, account: &str) -> Result<Vec<String>> {
    let failing = schedules::failing(db, account, limits::SCHEDULES_WARNED).await?;
    let warnings = failing.into_iter().filter_map(|row| {
        Some(format!(
            "the schedule of disk {} fails: {} (see `sealctl snapshot schedules`)",
            row.disk_name, row.error?
        ))
    });
    Ok(warnings.collect())
}

/// As the API gives it.
pub(crate) fn answer(row: ScheduleRow, times: &Times) -> Schedule {
    Schedule {
        next_snapshot: row.next.planned(times),
        id: row.id,
        disk: row.disk,
        disk_name: row.disk_name,
        name: row.name,
        every_seconds: row.every.unsigned_abs() / 1000,
        keep: row.keep,
        snapshots: row.snapshots.unsigned_abs(),
        uid: row.uid,
        created: row.created,
        last_snapshot: row.last,
        last_error: row.error,
    }
}
