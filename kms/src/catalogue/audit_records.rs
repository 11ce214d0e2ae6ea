//! The records of the audit log. What was archived and has not been removed yet is among them: who reads begins after it.

use serde_json::Value;
use sqlx::FromRow;

use super::{Db, changed, execute, find_row, find_value, rows, several};

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
    /// JSON; none in records of earlier versions.
    #[sqlx(default)]
    pub(crate) details: Option<String>,
    /// Hash of the record and all before it; 32 bytes.
    pub(crate) hash: Vec<u8>,
}

/// Appends a record.
pub(crate) async fn insert(db: &mut Db, row: &AuditRow) -> sqlx::Result<()> {
    let Some(details) = &row.details else {
        // A catalogue of an earlier version has no column for details.
        return execute!(
            db,
            "INSERT INTO audit (seq, time, account, uid, pid, request, call, object, decision, rule, code, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            row.seq, &row.time, &row.account, row.uid, row.pid, &row.request, &row.call, &row.object,
            &row.decision, &row.rule, &row.code, &row.hash
        )
        .await;
    };
    execute!(
        db,
        "INSERT INTO audit (seq, time, account, uid, pid, request, call, object, decision, rule, code, hash, details)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        row.seq, &row.time, &row.account, row.uid, row.pid, &row.request, &row.call, &row.object,
        &row.decision, &row.rule, &row.code, &row.hash, details
    )
    .await
}

/// Has the record of a position found by the ids of what it is about.
pub(crate) async fn index(db: &mut Db, seq: i64, ids: impl IntoIterator<Item = &str>) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT OR IGNORE INTO audit_objects (id, seq) SELECT value, ?2 FROM json_each(?1) AS wanted";
        several(ids), seq
    )
    .await
}

/// Which of an account's records are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Those after this position.
    pub(crate) after: u64,
    /// Those that are about all of these ids.
    pub(crate) ids: Vec<String>,
    /// Those from this time on, as the catalogue has times.
    pub(crate) since: String,
    /// Those before this time.
    pub(crate) until: String,
    /// So many at most.
    pub(crate) limit: u32,
}

impl Wanted {
    /// All records after a position.
    pub(crate) fn after(after: u64, limit: u32) -> Self {
        Wanted {
            after,
            ids: Vec::new(),
            since: String::new(),
            // After all times.
            until: "~".to_owned(),
            limit,
        }
    }
}

/// The account's records, oldest first.
pub(crate) async fn of_account(db: &mut Db, account: &str, wanted: &Wanted) -> sqlx::Result<Vec<AuditRow>> {
    let Some((first, others)) = wanted.ids.split_first() else {
        return rows!(
            db,
            "SELECT * FROM audit WHERE account = ?1 AND seq > ?2 AND time >= ?3 AND time < ?4 ORDER BY seq LIMIT ?5";
            account, position(wanted.after), &wanted.since, &wanted.until, wanted.limit
        )
        .await;
    };
    rows!(
        db,
        "SELECT audit.* FROM audit_objects AS first CROSS JOIN audit ON audit.seq = first.seq
         WHERE first.id = ?6 AND first.seq > ?2 AND account = ?1 AND time >= ?3 AND time < ?4
           AND NOT EXISTS (SELECT 1 FROM json_each(?7) AS wanted WHERE NOT EXISTS
                           (SELECT 1 FROM audit_objects WHERE id = wanted.value AND seq = first.seq))
         ORDER BY first.seq LIMIT ?5";
        account, position(wanted.after), &wanted.since, &wanted.until, wanted.limit, first,
        several(others.iter().map(String::as_str))
    )
    .await
}

/// Whether the log has already why a call that was allowed did not succeed: its last record.
pub(crate) async fn has_end(db: &mut Db, request: &str, call: &str) -> sqlx::Result<bool> {
    let ended: Option<bool> = find_value!(
        db,
        "SELECT decision <> 'allowed' FROM audit_objects AS objects CROSS JOIN audit ON audit.seq = objects.seq
         WHERE objects.id = ?1 AND request = ?1 AND call = ?2 ORDER BY objects.seq DESC LIMIT 1";
        request, call
    )
    .await?;
    Ok(ended.unwrap_or_default())
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

/// Position and hash of an account's newest record up to a position.
pub(crate) async fn newest_of(
    db: &mut Db,
    account: &str,
    up_to: u64,
) -> sqlx::Result<Option<(i64, Vec<u8>)>> {
    find_row!(
        db,
        "SELECT seq, hash FROM audit WHERE account = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1";
        account, position(up_to)
    )
    .await
}

/// Hash of the record at a position.
pub(crate) async fn hash_at(db: &mut Db, seq: u64) -> sqlx::Result<Option<Vec<u8>>> {
    find_value!(db, "SELECT hash FROM audit WHERE seq = ?1"; position(seq)).await
}

/// Has records no longer found by what they are about: pairs of an id and a position.
pub(crate) async fn unindex(db: &mut Db, entries: &[(String, i64)]) -> sqlx::Result<()> {
    let entries: Value = entries
        .iter()
        .map(|(id, seq)| Value::from(vec![Value::from(id.as_str()), Value::from(*seq)]))
        .collect();
    execute!(
        db,
        "DELETE FROM audit_objects WHERE (id, seq) IN
             (SELECT value ->> 0, value ->> 1 FROM json_each(?1) AS wanted)";
        entries.to_string()
    )
    .await
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
