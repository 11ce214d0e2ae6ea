//! The audit log: append-only and hash-chained (rule M04).
//!
//! Hash of a record = SHA-256(hash of the record before ‖ encoding of this one); before the first record stand 32
//! zero bytes. The encoding is, for each of seq, time, account, uid, pid, request, call, object, decision, rule and
//! code in this order: its text's length (4 bytes, big-endian) ‖ its text in UTF-8; an absent rule or code is
//! the empty text.

use sha2::{Digest, Sha256};
use sqlx::{FromRow, SqliteConnection};

use crate::api::types::AuditRecord;
use crate::catalogue::meta;
use crate::clock;
use crate::error::{Code, Error};

/// Who asks, as the kernel saw it, and for which account.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    /// Id of the request.
    pub(crate) request: String,
}

/// What was decided.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<'a> {
    /// It may be done, and is begun.
    Allowed,
    /// It may not; nothing has changed.
    Refused(&'a Error),
    /// It was allowed, and then did not succeed; it was undone.
    Failed(&'a Error),
}

/// Broken evidence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error("the audit log has been changed at record {0}")]
    Broken(u64),
    #[error("the audit log ends at record {end}, and had a record {head}: the newest ones were cut off")]
    Cut { end: u64, head: u64 },
    #[error(
        "record {0} is another one than the head says: the audit log was written anew, or is not the one of the head"
    )]
    Other(u64),
    #[error("the audit log cannot be read")]
    Database(#[from] sqlx::Error),
}

impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        let code = match error {
            AuditError::Database(_) => Code::CatalogueFailed,
            _ => Code::AuditBroken,
        };
        Error::because(code, "the audit log is no evidence", error)
    }
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    time: String,
    account: String,
    uid: u32,
    pid: i32,
    request: String,
    call: String,
    object: String,
    decision: String,
    rule: Option<String>,
    code: Option<String>,
    hash: Vec<u8>,
}

impl Row {
    fn chained(&self, previous: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(previous);
        let (seq, uid, pid) = (self.seq.to_string(), self.uid.to_string(), self.pid.to_string());
        let (rule, code) = (
            self.rule.as_deref().unwrap_or(""),
            self.code.as_deref().unwrap_or(""),
        );
        for text in [
            &seq,
            &self.time,
            &self.account,
            &uid,
            &pid,
            &self.request,
            &self.call,
            &self.object,
            &self.decision,
            rule,
            code,
        ] {
            hash.update((text.len() as u32).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }
}

/// Appends a record, in the transaction of what it is about.
///
/// # Errors
/// [`Code::AuditFailed`]: then the call must fail, and the transaction must not be committed.
pub(crate) async fn append(
    db: &mut SqliteConnection,
    caller: &Caller,
    call: &str,
    object: &str,
    decision: Decision<'_>,
) -> Result<(), Error> {
    try_append(db, caller, call, object, decision)
        .await
        .map_err(|error| Error::because(Code::AuditFailed, "the audit log cannot be written", error))
}

/// Appends an alarm: a key that is going to be destroyed is still needed (rule K11).
///
/// # Errors
/// As [`append`].
pub(crate) async fn alarm(
    db: &mut SqliteConnection,
    caller: &Caller,
    key: &str,
    why: &str,
) -> Result<(), Error> {
    log::warn!("alarm: key {key} is going to be destroyed: {why}");
    append(db, caller, "key.alarm", key, Decision::Allowed).await
}

async fn try_append(
    db: &mut SqliteConnection,
    caller: &Caller,
    call: &str,
    object: &str,
    decision: Decision<'_>,
) -> Result<(), sqlx::Error> {
    let last: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
            .fetch_optional(&mut *db)
            .await?;
    let (seq, previous) = last.unwrap_or((0, vec![0; 32]));
    let (decision, error) = match decision {
        Decision::Allowed => ("allowed", None),
        Decision::Refused(error) => ("refused", Some(error)),
        Decision::Failed(error) => ("failed", Some(error)),
    };
    let mut row = Row {
        seq: seq + 1,
        time: clock::now(),
        account: caller.account.clone(),
        uid: caller.uid,
        pid: caller.pid,
        request: caller.request.clone(),
        call: call.to_owned(),
        object: object.to_owned(),
        decision: decision.to_owned(),
        rule: error.and_then(|error| error.code().rule()).map(str::to_owned),
        code: error.map(|error| error.code().name().to_owned()),
        hash: Vec::new(),
    };
    row.hash = row.chained(&previous).to_vec();
    insert(db, &row).await
}

async fn insert(db: &mut SqliteConnection, row: &Row) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (seq, time, account, uid, pid, request, call, object, decision, rule, code, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.seq)
    .bind(&row.time)
    .bind(&row.account)
    .bind(row.uid)
    .bind(row.pid)
    .bind(&row.request)
    .bind(&row.call)
    .bind(&row.object)
    .bind(&row.decision)
    .bind(&row.rule)
    .bind(&row.code)
    .bind(&row.hash)
    .execute(db)
    .await?;
    Ok(())
}

/// The account's records after `after`, at most `limit`. Refusals of users who belong to no account are the owner's.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditRecord>, sqlx::Error> {
    let strangers = if account == meta::OWNER { "" } else { account };
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM audit WHERE seq > ? AND account IN (?, ?) ORDER BY seq LIMIT ?")
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(account)
            .bind(strangers)
            .bind(limit)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().map(AuditRecord::from).collect())
}

/// How far the log reaches: its newest record. The hash covers every record up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Position; 0 of an empty log.
    pub(crate) seq: u64,
    /// Of that record; 32 zero bytes of an empty log.
    pub(crate) hash: Vec<u8>,
}

/// Recomputes the whole chain, and gives its head.
///
/// # Errors
/// [`AuditError::Broken`] at the first record that is not what was written. What was cut off at the end is found by a
/// head that was `noted` earlier: [`AuditError::Cut`], [`AuditError::Other`].
pub(crate) async fn verify(db: &mut SqliteConnection, noted: Option<&Head>) -> Result<Head, AuditError> {
    let mut head = Head {
        seq: 0,
        hash: vec![0; 32],
    };
    check_noted(noted, &head)?;
    loop {
        let rows = rows_after(db, head.seq).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let seq = row.seq.unsigned_abs();
            if seq != head.seq + 1 || row.hash != row.chained(&head.hash) {
                return Err(AuditError::Broken(seq));
            }
            head = Head { seq, hash: row.hash };
            check_noted(noted, &head)?;
        }
    }
    match noted {
        Some(noted) if noted.seq > head.seq => Err(AuditError::Cut {
            end: head.seq,
            head: noted.seq,
        }),
        _ => Ok(head),
    }
}

fn check_noted(noted: Option<&Head>, reached: &Head) -> Result<(), AuditError> {
    match noted {
        Some(noted) if noted.seq == reached.seq && noted.hash != reached.hash => {
            Err(AuditError::Other(noted.seq))
        }
        _ => Ok(()),
    }
}

async fn rows_after(db: &mut SqliteConnection, seq: u64) -> Result<Vec<Row>, sqlx::Error> {
    const STEP: i64 = 1000;
    sqlx::query_as("SELECT * FROM audit WHERE seq > ? ORDER BY seq LIMIT ?")
        .bind(seq.cast_signed())
        .bind(STEP)
        .fetch_all(db)
        .await
}

impl From<Row> for AuditRecord {
    fn from(row: Row) -> Self {
        let id = format!("audit-{}", row.seq);
        AuditRecord {
            name: id.clone(),
            id,
            seq: row.seq.unsigned_abs(),
            time: row.time,
            account: row.account,
            uid: row.uid,
            pid: row.pid,
            request: row.request,
            call: row.call,
            object: row.object,
            decision: row.decision,
            rule: row.rule,
            code: row.code,
            hash: hex::encode(row.hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    async fn with_records() -> (tempfile::TempDir, Catalogue) {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(&directory.path().join("catalogue.db"))
            .await
            .unwrap();
        let caller = Caller {
            account: "default".into(),
            uid: 7,
            pid: 8,
            request: "req-1".into(),
        };
        let refusal = Error::new(Code::LocalStorage, "no");
        for decision in [
            Decision::Allowed,
            Decision::Refused(&refusal),
            Decision::Failed(&refusal),
        ] {
            let mut tx = catalogue.write().await.unwrap();
            append(&mut tx, &caller, "attach", "disk-1", decision)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        (directory, catalogue)
    }

    #[tokio::test]
    async fn records_are_chained_and_listed() {
        let (_directory, catalogue) = with_records().await;
        let mut db = catalogue.read().await.unwrap();
        assert_eq!(verify(&mut db, None).await.unwrap().seq, 3);
        let records = list(&mut db, "default", 1, 10).await.unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].seq, records[0].rule.as_deref()), (2, Some("A03")));
        assert_eq!(
            (records[0].id.as_str(), records[0].name.as_str()),
            ("audit-2", "audit-2")
        );
        assert_eq!(records[1].decision, "failed");
        assert!(list(&mut db, "other", 0, 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn rule_m04_the_log_cannot_be_changed_and_a_change_would_be_found() {
        let (_directory, catalogue) = with_records().await;
        let mut db = catalogue.write_alone().await.unwrap();
        for statement in [
            "UPDATE audit SET uid = 1 WHERE seq = 2",
            "DELETE FROM audit WHERE seq = 2",
        ] {
            let refused = sqlx::query(statement).execute(&mut *db).await.unwrap_err();
            assert!(refused.to_string().contains("append-only"), "{refused}");
        }
        for trigger in [
            "DROP TRIGGER audit_is_never_changed",
            "DROP TRIGGER audit_is_never_cut",
        ] {
            sqlx::query(trigger).execute(&mut *db).await.unwrap();
        }
        sqlx::query("UPDATE audit SET object = 'disk-2' WHERE seq = 2")
            .execute(&mut *db)
            .await
            .unwrap();
        assert!(matches!(verify(&mut db, None).await, Err(AuditError::Broken(2))));
        sqlx::query("DELETE FROM audit WHERE seq = 2")
            .execute(&mut *db)
            .await
            .unwrap();
        assert!(matches!(verify(&mut db, None).await, Err(AuditError::Broken(3))));
    }
}
