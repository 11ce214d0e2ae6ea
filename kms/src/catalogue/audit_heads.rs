//! Heads of the audit log under a seal of the root key: where it begins, and how far it was seen to be sound.

use sqlx::FromRow;

use super::{Db, execute, find_row, rows};

/// The newest record of those that were archived.
pub(crate) const ARCHIVED: &str = "archived";
/// The newest record that the daemon had written when it last looked.
pub(crate) const SEALED: &str = "sealed";

/// A head.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct HeadRow {
    /// [`ARCHIVED`] or [`SEALED`].
    pub(crate) kind: String,
    /// Position of the record.
    pub(crate) seq: i64,
    /// Hash of the record.
    pub(crate) hash: Vec<u8>,
    /// Of [`HeadRow::statement`].
    pub(crate) seal: Vec<u8>,
}

impl HeadRow {
    /// What is sealed: no two heads have the same.
    pub(crate) fn statement(&self) -> String {
        format!("{} {} {}", self.kind, self.seq, hex::encode(&self.hash))
    }
}

/// The head of this kind, if there is one.
pub(crate) async fn find(db: &mut Db, kind: &str) -> sqlx::Result<Option<HeadRow>> {
    find_row!(db, "SELECT kind, seq, hash, seal FROM audit_heads WHERE kind = ?1"; kind).await
}

/// Both heads, or those that there are.
pub(crate) async fn all(db: &mut Db) -> sqlx::Result<Vec<HeadRow>> {
    rows!(db, "SELECT kind, seq, hash, seal FROM audit_heads").await
}

/// Stores a head, instead of the one of its kind.
pub(crate) async fn set(db: &mut Db, head: &HeadRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT OR REPLACE INTO audit_heads (kind, seq, hash, seal) VALUES (?1, ?2, ?3, ?4)";
        &head.kind, head.seq, &head.hash, &head.seal
    )
    .await
}
