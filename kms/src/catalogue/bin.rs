//! The bin: disks that were deleted and can be restored until their time is over (rule K14). A row is in `disks` or here.

use sqlx::FromRow;

use super::disks::{self, DiskRow};
use super::{Db, Listed, Page, execute, find_row, row, rows, value};
use crate::catalogue::states::DiskState;
use crate::clock;
use crate::timekeeper::{DAY, Times};

/// A deleted disk.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct BinRow {
    /// The disk as it was, and as it will be if it is restored.
    #[sqlx(flatten)]
    pub(crate) disk: DiskRow,
    /// When it was deleted.
    pub(crate) deleted: String,
    #[sqlx(flatten)]
    pub(crate) removal: Removal,
}

/// When a disk leaves the bin for ever.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Removal {
    /// By the wall clock, as that was when the disk was deleted.
    #[sqlx(rename = "removal")]
    pub(crate) day: String,
    /// By the seen time.
    #[sqlx(rename = "removal_seen")]
    pub(crate) seen: i64,
}

impl Removal {
    /// So many days from now.
    pub(crate) fn in_days(times: &Times, days: u16) -> Self {
        let seen = times.seen + i64::from(days) * DAY;
        Removal {
            day: clock::at(times.wall_at(seen)),
            seen,
        }
    }

    /// The day, as the clocks have it now.
    pub(crate) fn planned(&self, times: &Times) -> String {
        clock::at(times.day_of(self.promised(), self.seen))
    }

    /// Whether the day has come.
    pub(crate) fn is_due(&self, times: &Times) -> bool {
        times.has_come(self.promised(), self.seen)
    }

    fn promised(&self) -> i64 {
        clock::parse(&self.day).unwrap_or_default()
    }
}

/// How many disks of an account are in the bin, and bytes that their files took when they were deleted.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct Content {
    pub(crate) disks: i64,
    pub(crate) allocated: i64,
}

macro_rules! select_bin {
    ($rest:literal) => {
        concat!(
            "SELECT bin.id, bin.account, bin.name, bin.state, encrypted, size, store, path, identity,
                    volumes.zone, lineage, base, kind, disk_type, 'data' AS role, NULL AS system_of, shared, on_full,
                    bin.created, lineages.key, lineages.key_version, keys.state AS key_state, NULL AS attachment,
                    NULL AS instance, deleted, removal, removal_seen
             FROM bin
             JOIN volumes ON volumes.id = bin.id
             LEFT JOIN lineages ON lineages.id = volumes.lineage
             LEFT JOIN keys ON keys.id = lineages.key ",
            $rest
        )
    };
}

/// The account's deleted disks of this id or name.
pub(crate) async fn find(db: &mut Db, account: &str, id_or_name: &str) -> sqlx::Result<Vec<BinRow>> {
    rows!(
        db,
        select_bin!(
            "WHERE bin.id IN (SELECT ?2 UNION SELECT id FROM bin WHERE account = ?1 AND name = ?2) AND bin.account = ?1"
        );
        account, id_or_name
    )
    .await
}

/// The deleted disk of this id, of whatever account, if it is in the bin.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<Option<BinRow>> {
    find_row!(db, select_bin!("WHERE bin.id = ?1"); id).await
}

/// A page of the account's deleted disks, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<BinRow>> {
    let rows = rows!(
        db,
        select_bin!("WHERE bin.account = ?1 AND bin.id > ?2 ORDER BY bin.id LIMIT ?3");
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &BinRow| &row.disk.id))
}

/// Deleted disks, of whatever account, whose days were seen to pass: those first that have waited longest.
pub(crate) async fn due(db: &mut Db, seen: i64, limit: u32) -> sqlx::Result<Vec<BinRow>> {
    rows!(
        db,
        select_bin!("WHERE removal_seen <= ?1 ORDER BY removal_seen LIMIT ?2");
        seen, limit
    )
    .await
}

/// What an account has in the bin.
pub(crate) async fn content(db: &mut Db, account: &str) -> sqlx::Result<Content> {
    row!(
        db,
        "SELECT count(*) AS disks, coalesce(sum(allocated), 0) AS allocated FROM bin WHERE account = ?1";
        account
    )
    .await
}

/// How many of a key's disks are in the bin.
pub(crate) async fn count_of_key(db: &mut Db, key: &str) -> sqlx::Result<i64> {
    value!(
        db,
        "SELECT count(*) FROM protected JOIN bin ON bin.id = protected.id WHERE key = ?1"; key
    )
    .await
}

/// Puts a disk into the bin, for so many days.
pub(crate) async fn put(db: &mut Db, row: &BinRow, days: u16, allocated: u64) -> sqlx::Result<()> {
    let disk = &row.disk;
    disks::delete(db, &disk.id).await?;
    execute!(
        db,
        "INSERT INTO bin (id, account, name, state, shared, on_full, created, deleted, days, removal, removal_seen, allocated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        &disk.id, &disk.account, &disk.name, disk.state, disk.shared, disk.on_full, &disk.created, &row.deleted, days,
        &row.removal.day, row.removal.seen, i64::try_from(allocated).unwrap_or(i64::MAX)
    )
    .await?;
    keep(db, &disk.id).await
}

/// Takes a disk out of the bin, as a disk of this name.
pub(crate) async fn restore(db: &mut Db, disk: &DiskRow, name: &str) -> sqlx::Result<()> {
    delete(db, &disk.id).await?;
    execute!(
        db,
        "INSERT INTO disks (id, account, name, state, shared, on_full, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        &disk.id, &disk.account, name, disk.state, disk.shared, disk.on_full, &disk.created
    )
    .await?;
    keep(db, &disk.id).await
}

/// The volume went from one table to the other, and was needed all the time.
async fn keep(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM released WHERE volume = ?1"; id).await
}

/// Removes the disk for ever, if it is in the bin; its volume stays.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM bin WHERE id = ?1"; id).await
}

/// Changes the state that the disk has if it is restored.
pub(crate) async fn set_state(db: &mut Db, id: &str, state: DiskState) -> sqlx::Result<()> {
    execute!(db, "UPDATE bin SET state = ?1 WHERE id = ?2"; state, id).await
}

/// The disk could not be removed: it stays until then at least, by the seen time.
pub(crate) async fn postpone(db: &mut Db, id: &str, seen: i64) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE bin SET removal_seen = max(removal_seen, ?1) WHERE id = ?2"; seen, id
    )
    .await
}

/// After the restore of a catalogue: a disk that is in the bin may have been restored since, and be in use. So its days begin anew.
pub(crate) async fn begin_anew(db: &mut Db, seen: i64) -> sqlx::Result<()> {
    execute!(db, "UPDATE bin SET removal_seen = ?1 + days * ?2"; seen, DAY).await
}
