//! The records of the audit log. What was archived and has not been removed yet is among them: who reads begins after it.

use sqlx::FromRow;

use super::{Db, changed, execute, find_row, find_value, rows};

/// A record, in the order of the table's columns.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AuditRow {
    /// Position; from 1.
    pub(crate) seq: i64,
    pub(crate) time: String,
    pub(crate) account: String,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) request: String,
    pub(crate) call: String,
    pub(crate) object: String,
    /// `allowed`, `refused` or `failed`.
    pub(crate) decision: String,
    pub(crate) rule: Option<String>,
    pub(crate) code: Option<String>,
    /// Hash of the record and all before it; 32 bytes.
    pub(crate) hash: Vec<u8>,
}

/// Appends a record.
pub(crate) async fn insert(db: &mut Db, row: &AuditRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO audit (seq, time, account, uid, pid, request, call, object, decision, rule, code, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        row.seq, &row.time, &row.account, row.uid, row.pid, &row.request, &row.call, &row.object,
        &row.decision, &row.rule, &row.code, &row.hash
    )
    .await
}

/// The account's records after a position, at most so many, oldest first.
pub(crate) async fn of_account(
    db: &mut Db,
    account: &str,
    after: u64,
    limit: u32,
) -> sqlx::Result<Vec<AuditRow>> {
    rows!(
        db,
        "SELECT * FROM audit WHERE account = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
        account, position(after), limit
    )
    .await
}

/// The records of all accounts after a position and up to another, at most so many, oldest first.
pub(crate) async fn between(db: &mut Db, after: u64, up_to: u64, limit: u32) -> sqlx::Result<Vec<AuditRow>> {
    rows!(
        db,
        "SELECT * FROM audit WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
        position(after), position(up_to), limit
    )
    .await
}

/// Position and hash of the newest record.
pub(crate) async fn newest(db: &mut Db) -> sqlx::Result<Option<(i64, Vec<u8>)>> {
    find_row!(db, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").await
}

/// Hash of the record at a position.
pub(crate) async fn hash_at(db: &mut Db, seq: u64) -> sqlx::Result<Option<Vec<u8>>> {
    find_value!(db, "SELECT hash FROM audit WHERE seq = ?1"; position(seq)).await
}

/// Removes the oldest records up to a position, at most so many; how many it were. A trigger refuses what was not archived.
pub(crate) async fn remove_up_to(db: &mut Db, seq: u64, most: u32) -> sqlx::Result<u64> {
    changed!(
        db,
        "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE seq <= ?1 ORDER BY seq LIMIT ?2)";
        position(seq), most
    )
    .await
}

/// As SQLite has it; what is beyond it is after all records.
fn position(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
