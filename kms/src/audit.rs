//! The audit log: append-only and hash-chained (rule M04), as [`AuditRecord::chained`] has it.

pub(crate) mod details;
mod record;
pub(crate) mod sinks;
pub(crate) mod verify;

use sqlx::SqliteConnection;

use record::record;
pub(crate) use verify::{
    AuditError, Head, NO_EVIDENCE, archived, compare, newest, newest_of, verify, verify_apart,
};

pub(crate) use crate::caller::{Caller, Facts};
pub(crate) use crate::catalogue::audit_records::Wanted;
use crate::catalogue::audit_records::{self, AuditRow};
use crate::catalogue::meta;
use crate::error::{Code, Error};
use crate::{clock, limits};
use sealblk_api::{AuditHead, AuditRecord, Details, text_of};

/// What was decided.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<'a> {
    /// The call may do what it was asked for, and begins.
    Allowed,
    /// The call may not do it; nothing has changed.
    Refused(&'a Error),
    /// The call was allowed, did not succeed, and was undone.
    Failed(&'a Error),
}

impl<'a> Decision<'a> {
    /// What is recorded of a call that was allowed and has not succeeded.
    pub(crate) fn ended(error: &'a Error) -> Self {
        match error.code() {
            // The backend's part of the decision: nothing was done.
            Code::FrontendConnected => Decision::Refused(error),
            _ => Decision::Failed(error),
        }
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
    try_append(db, caller, call, object, decision).await.map_err(lost)
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
    let caller = caller.apart();
    caller.facts.note("key", key);
    caller.facts.note("reason", why);
    append(db, &caller, "key.alarm", key, Decision::Allowed).await
}

/// Appends a record without details to a catalogue whose schema may be of any version.
///
/// # Errors
/// As [`append`].
pub(crate) async fn append_to_any_version(
    db: &mut SqliteConnection,
    caller: &Caller,
    call: &str,
    object: &str,
    decision: Decision<'_>,
) -> Result<(), Error> {
    let appended = async {
        let row = row_of(db, caller, (call, object), decision, None).await?;
        audit_records::insert(db, &row).await
    };
    appended.await.map_err(lost)
}

fn lost(error: sqlx::Error) -> Error {
    Error::because(Code::AuditFailed, "the audit log cannot be written", error)
}

async fn try_append(
    db: &mut SqliteConnection,
    caller: &Caller,
    call: &str,
    object: &str,
    decision: Decision<'_>,
) -> Result<(), sqlx::Error> {
    let details = details::of(db, caller).await?;
    let row = row_of(db, caller, (call, object), decision, details.as_ref()).await?;
    audit_records::insert(db, &row).await?;
    audit_records::index(db, row.seq, details::ids(&row.request, details.as_ref())).await
}

/// The record that follows the newest one.
async fn row_of(
    db: &mut SqliteConnection,
    caller: &Caller,
    (call, object): (&str, &str),
    decision: Decision<'_>,
    details: Option<&Details>,
) -> Result<AuditRow, sqlx::Error> {
    let previous = newest(db).await?;
    let (decision, error) = match decision {
        Decision::Allowed => ("allowed", None),
        Decision::Refused(error) => ("refused", Some(error)),
        Decision::Failed(error) => ("failed", Some(error)),
    };
    let row = AuditRow {
        seq: previous.seq.cast_signed() + 1,
        time: clock::now(),
        account: caller.account.clone(),
        uid: caller.uid,
        pid: caller.pid,
        request: caller.request.clone(),
        call: call.to_owned(),
        object: details::cut(object, limits::AUDIT_OBJECT_BYTES),
        decision: decision.to_owned(),
        rule: error.and_then(|error| error.code().rule()).map(str::to_owned),
        code: error.map(|error| error.code().name().to_owned()),
        details: details.map(text_of),
        hash: Vec::new(),
    };
    let hash = record(row.clone()).chained(&previous.hash).to_vec();
    Ok(AuditRow { hash, ..row })
}

/// The account's records that are wanted. Refusals of users who belong to no account are the owner's.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    mut wanted: Wanted,
) -> Result<Vec<AuditRecord>, sqlx::Error> {
    wanted.after = wanted.after.max(archived(db).await?.seq);
    let mut rows = audit_records::of_account(db, account, &wanted).await?;
    if account == meta::OWNER {
        rows.append(&mut audit_records::of_account(db, "", &wanted).await?);
        rows.sort_by_key(|row| row.seq);
        rows.truncate(wanted.limit as usize);
    }
    Ok(rows.into_iter().map(record).collect())
}

/// All records after `after`, of every account.
pub(crate) async fn list_all(
    db: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditRecord>, sqlx::Error> {
    let after = after.max(archived(db).await?.seq);
    let rows = audit_records::between(db, after, u64::MAX, limit).await?;
    Ok(rows.into_iter().map(record).collect())
}

/// Removes at most so many rows of what was archived; how many it were.
pub(crate) async fn remove_archived(db: &mut SqliteConnection, most: u32) -> Result<u64, sqlx::Error> {
    let archived = archived(db).await?;
    let going = audit_records::between(db, 0, archived.seq, most).await?;
    let entries = going.into_iter().map(record).flat_map(|record| {
        let ids = details::ids(&record.request, record.details.as_ref());
        let seq = record.seq.cast_signed();
        ids.map(|id| (id.to_owned(), seq)).collect::<Vec<_>>()
    });
    audit_records::unindex(db, &entries.collect::<Vec<_>>()).await?;
    audit_records::remove_up_to(db, archived.seq, most).await
}

impl From<&Head> for AuditHead {
    fn from(head: &Head) -> Self {
        let id = format!("audit-{}", head.seq);
        AuditHead {
            name: id.clone(),
            id,
            seq: head.seq,
            hash: hex::encode(&head.hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Catalogue, behind};

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
            facts: Facts::default(),
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

    #[test]
    fn what_a_caller_made_up_is_cut_in_whole_characters() {
        for (object, expected) in [
            ("disk-1".to_owned(), "disk-1".to_owned()),
            ("x".repeat(128), "x".repeat(128)),
            ("x".repeat(129), "x".repeat(125) + "…"),
            ("ä".repeat(60_000), "ä".repeat(62) + "…"),
            ("🔑".repeat(33), "🔑".repeat(31) + "…"),
        ] {
            let cut = details::cut(&object, limits::AUDIT_OBJECT_BYTES);
            assert!(cut.len() <= limits::AUDIT_OBJECT_BYTES);
            assert_eq!(cut, expected);
        }
    }

    #[tokio::test]
    async fn records_are_chained_and_listed() {
        let (_directory, catalogue) = with_records().await;
        let mut db = catalogue.read().await.unwrap();
        assert_eq!(verify(&mut db, None).await.unwrap().seq, 3);
        let after = |after| Wanted::after(after, 10);
        let records = list(&mut db, "default", after(1)).await.unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].seq, records[0].rule.as_deref()), (2, Some("A03")));
        assert_eq!(
            (records[0].id.as_str(), records[0].name.as_str()),
            ("audit-2", "audit-2")
        );
        assert_eq!(records[1].decision, "failed");
        assert!(list(&mut db, "other", after(0)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn rule_m04_the_log_cannot_be_changed_and_a_change_would_be_found() {
        let (_directory, catalogue) = with_records().await;
        let mut db = catalogue.write_alone().await.unwrap();
        for statement in [
            "UPDATE audit SET uid = 1 WHERE seq = 2",
            "DELETE FROM audit WHERE seq = 2",
        ] {
            let refused = behind::run(&mut db, statement).await.unwrap_err();
            assert!(refused.to_string().contains("append-only"), "{refused}");
        }
        for trigger in [
            "DROP TRIGGER audit_is_never_changed",
            "DROP TRIGGER audit_is_never_cut",
        ] {
            behind::run(&mut db, trigger).await.unwrap();
        }
        behind::run(&mut db, "UPDATE audit SET object = 'disk-2' WHERE seq = 2")
            .await
            .unwrap();
        assert!(matches!(verify(&mut db, None).await, Err(AuditError::Broken(2))));
        behind::run(&mut db, "DELETE FROM audit WHERE seq = 2")
            .await
            .unwrap();
        assert!(matches!(verify(&mut db, None).await, Err(AuditError::Broken(3))));
    }
}
