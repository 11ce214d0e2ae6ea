//! Schedules of snapshots. One whose disk is in the bin, or has gone, is in no list and is never due.

use sqlx::FromRow;

use super::{Db, Listed, Page, changed, execute, find_row, rows, values};
use crate::clock;
use crate::timekeeper::Times;

/// A schedule, with its disk's name.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ScheduleRow {
    pub(crate) id: String,
    pub(crate) disk: String,
    pub(crate) disk_name: String,
    pub(crate) account: String,
    /// What its snapshots' names begin with.
    pub(crate) name: String,
    /// Milliseconds from one to the next.
    pub(crate) every: i64,
    pub(crate) keep: u32,
    /// Who has made it.
    pub(crate) uid: u32,
    pub(crate) created: String,
    #[sqlx(flatten)]
    pub(crate) next: Due,
    /// When the last one was taken.
    pub(crate) last: Option<String>,
    /// Why the last attempt failed, if it did.
    pub(crate) error: Option<String>,
    /// How many snapshots of it there are.
    pub(crate) snapshots: i64,
}

/// When the next snapshot is due.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Due {
    /// By the wall clock, as that was when it was decided.
    #[sqlx(rename = "due")]
    pub(crate) time: String,
    /// By the seen time.
    #[sqlx(rename = "due_seen")]
    pub(crate) seen: i64,
}

impl Due {
    /// When the seen time is so far.
    pub(crate) fn at(times: &Times, seen: i64) -> Self {
        Due {
            time: clock::at(times.wall_at(seen)),
            seen,
        }
    }

    /// The time, as the clocks have it now.
    pub(crate) fn planned(&self, times: &Times) -> String {
        let promised = clock::parse(&self.time).unwrap_or_default();
        clock::at(times.day_of(promised, self.seen))
    }
}

macro_rules! select_schedules {
    ($rest:literal) => {
        concat!(
            "SELECT snapshot_schedules.*, disks.name AS disk_name,
                    (SELECT count(*) FROM snapshots WHERE snapshots.schedule = snapshot_schedules.id
                     AND snapshots.state NOT IN ('hidden', 'deleting')) AS snapshots
             FROM snapshot_schedules JOIN disks ON disks.id = snapshot_schedules.disk ",
            $rest
        )
    };
}

/// The schedule of a disk.
pub(crate) async fn of_disk(db: &mut Db, disk: &str) -> sqlx::Result<Option<ScheduleRow>> {
    find_row!(db, select_schedules!("WHERE snapshot_schedules.disk = ?1"); disk).await
}

/// A page of the account's schedules, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<ScheduleRow>> {
    let rows = rows!(
        db,
        select_schedules!("WHERE snapshot_schedules.account = ?1 AND snapshot_schedules.id > ?2
         ORDER BY snapshot_schedules.id LIMIT ?3");
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &ScheduleRow| &row.id))
}

/// Some of the account's schedules whose last attempt failed.
pub(crate) async fn failing(db: &mut Db, account: &str, limit: u32) -> sqlx::Result<Vec<ScheduleRow>> {
    rows!(
        db,
        select_schedules!("WHERE snapshot_schedules.account = ?1 AND error IS NOT NULL LIMIT ?2");
        account, limit
    )
    .await
}

/// Schedules, of whatever account, of which a snapshot is due: those first that have waited longest.
pub(crate) async fn due(db: &mut Db, seen: i64, limit: u32) -> sqlx::Result<Vec<ScheduleRow>> {
    rows!(
        db,
        select_schedules!("WHERE due_seen <= ?1 ORDER BY due_seen LIMIT ?2");
        seen, limit
    )
    .await
}

/// Ids of the schedule's snapshots, oldest first, but for the newest `keep`.
pub(crate) async fn superfluous(db: &mut Db, id: &str, keep: u32) -> sqlx::Result<Vec<String>> {
    let mut ids: Vec<String> = values!(
        db,
        "SELECT id FROM snapshots WHERE schedule = ?1 AND state NOT IN ('hidden', 'deleting', 'creating')
         ORDER BY rowid DESC LIMIT -1 OFFSET ?2";
        id, keep
    )
    .await?;
    ids.reverse();
    Ok(ids)
}

/// Stores a schedule, in place of what its disk had.
pub(crate) async fn set(db: &mut Db, row: &ScheduleRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO snapshot_schedules (id, disk, account, name, every, keep, uid, created, due, due_seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (disk) DO UPDATE SET name = ?4, every = ?5, keep = ?6, uid = ?7, due = ?9, due_seen = ?10, error = NULL";
        &row.id, &row.disk, &row.account, &row.name, row.every, row.keep, row.uid, &row.created, &row.next.time,
        row.next.seen
    )
    .await
}

/// Notes what came of an attempt, and when the next one is due. Whether the schedule is as it was then.
pub(crate) async fn note(db: &mut Db, row: &ScheduleRow, next: &Due) -> sqlx::Result<bool> {
    let noted = changed!(
        db,
        "UPDATE snapshot_schedules SET last = ?1, error = ?2, due = ?3, due_seen = ?4 WHERE id = ?5 AND due_seen = ?6";
        &row.last, &row.error, &next.time, next.seen, &row.id, row.next.seen
    )
    .await?;
    Ok(noted > 0)
}

/// At the start: what would have been taken by now is due, once for each, however often its time was missed.
pub(crate) async fn make_up(db: &mut Db, now: &Due) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE snapshot_schedules SET due_seen = ?1 WHERE due_seen > ?1 AND due <= ?2";
        now.seen, &now.time
    )
    .await
}

/// Removes the schedule of a disk; its snapshots stay.
pub(crate) async fn delete(db: &mut Db, disk: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM snapshot_schedules WHERE disk = ?1"; disk).await
}
