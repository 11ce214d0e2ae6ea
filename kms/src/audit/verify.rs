//! Recomputing the chain.

use sqlx::SqliteConnection;

use super::record::record;
use crate::catalogue::{Catalogue, audit_heads, audit_records};
use crate::error::{Code, Error};

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
    #[error("the sealed head of the audit log, at record {0}, was not made by this daemon")]
    Forged(u64),
    #[error(
        "record {head} was archived, with all up to record {archived}: compare with the archive, by `sealctl audit verify \
         --archive FILE`"
    )]
    Archived { head: u64, archived: u64 },
    #[error("the audit log cannot be read")]
    Database(#[from] sqlx::Error),
}

impl AuditError {
    /// As it stands in answers and in the audit log.
    pub(crate) fn code(&self) -> Code {
        match self {
            AuditError::Database(_) => Code::CatalogueFailed,
            AuditError::Archived { .. } => Code::AuditArchived,
            _ => Code::AuditBroken,
        }
    }
}

impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        Error::because(error.code(), NO_EVIDENCE, error)
    }
}

/// What is wrong, whatever has happened to the log.
pub(crate) const NO_EVIDENCE: &str = "the audit log is no evidence";

/// How far the log reaches: its newest record. The hash covers every record up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Position; 0 of an empty log.
    pub(crate) seq: u64,
    /// Of that record; 32 zero bytes of an empty log.
    pub(crate) hash: Vec<u8>,
}

impl Head {
    /// Before the first record.
    fn empty() -> Self {
        Head {
            seq: 0,
            hash: vec![0; 32],
        }
    }
}

impl From<audit_heads::HeadRow> for Head {
    fn from(row: audit_heads::HeadRow) -> Self {
        Head {
            seq: row.seq.unsigned_abs(),
            hash: row.hash,
        }
    }
}

/// Head of what was archived: the log begins after it.
pub(crate) async fn archived(db: &mut SqliteConnection) -> Result<Head, sqlx::Error> {
    let row = audit_heads::find(db, audit_heads::ARCHIVED).await?;
    Ok(row.map_or_else(Head::empty, Head::from))
}

/// The head of the log as it stands there, without a look at what is before.
pub(crate) async fn newest(db: &mut SqliteConnection) -> Result<Head, sqlx::Error> {
    match audit_records::newest(db).await? {
        Some((seq, hash)) => Ok(Head {
            seq: seq.unsigned_abs(),
            hash,
        }),
        None => archived(db).await,
    }
}

/// The newest record of an account up to a head that was verified; where it has none any more, what was archived.
pub(crate) async fn newest_of(
    db: &mut SqliteConnection,
    account: &str,
    head: &Head,
) -> Result<Head, sqlx::Error> {
    match audit_records::newest_of(db, account, head.seq).await? {
        Some((seq, hash)) => Ok(Head {
            seq: seq.unsigned_abs(),
            hash,
        }),
        None => archived(db).await,
    }
}

/// Recomputes the whole chain, and gives its head.
///
/// # Errors
/// [`AuditError::Broken`] at the first record that is not what was written. What was cut off at the end is found by a
/// head that was `noted` earlier: see [`compare`].
pub(crate) async fn verify(db: &mut SqliteConnection, noted: Option<&Head>) -> Result<Head, AuditError> {
    let mut head = archived(db).await?;
    while let Some(next) = step(db, &head, u64::MAX).await? {
        head = next;
    }
    if let Some(noted) = noted {
        compare(db, &head, noted).await?;
    }
    Ok(head)
}

/// Recomputes the chain after `head` up to a record, with a connection for some records at a time: a log may be long, and others
/// need connections, too. Ends early if nobody is `wanted` to know any more.
///
/// # Errors
/// [`AuditError::Broken`].
pub(crate) async fn verify_apart(
    catalogue: &Catalogue,
    mut head: Head,
    up_to: u64,
    wanted: impl Fn() -> bool,
) -> Result<Head, AuditError> {
    while wanted() {
        let mut db = catalogue.read().await?;
        match step(&mut db, &head, up_to).await? {
            Some(next) => head = next,
            None => break,
        }
    }
    Ok(head)
}

/// Compares a log that was recomputed up to `reached` with a head that was noted earlier.
///
/// # Errors
/// [`AuditError::Cut`], [`AuditError::Other`], [`AuditError::Archived`].
pub(crate) async fn compare(
    db: &mut SqliteConnection,
    reached: &Head,
    noted: &Head,
) -> Result<(), AuditError> {
    let begin = archived(db).await?;
    if noted.seq > reached.seq {
        return Err(AuditError::Cut {
            end: reached.seq,
            head: noted.seq,
        });
    }
    if noted.seq < begin.seq {
        return Err(AuditError::Archived {
            head: noted.seq,
            archived: begin.seq,
        });
    }
    let hash = if noted.seq == begin.seq {
        Some(begin.hash)
    } else {
        audit_records::hash_at(db, noted.seq).await?
    };
    if hash.as_ref() == Some(&noted.hash) {
        Ok(())
    } else {
        Err(AuditError::Other(noted.seq))
    }
}

/// Recomputes some of the records that follow; none if there are no more.
async fn step(db: &mut SqliteConnection, head: &Head, up_to: u64) -> Result<Option<Head>, AuditError> {
    const STEP: u32 = 1000;
    let rows = audit_records::between(db, head.seq, up_to, STEP).await?;
    let mut reached = None;
    for mut row in rows {
        let previous = reached.as_ref().unwrap_or(head);
        let hash = std::mem::take(&mut row.hash);
        let record = record(row);
        let seq = record.seq;
        if seq != previous.seq + 1 || hash != record.chained(&previous.hash) {
            return Err(AuditError::Broken(seq));
        }
        reached = Some(Head { seq, hash });
    }
    Ok(reached)
}
