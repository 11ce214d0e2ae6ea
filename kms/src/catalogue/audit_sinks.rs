//! How far each sink has the audit log.

use super::{Db, execute, find_value};

/// Position of the last record that a sink has; none if it is new.
pub(crate) async fn position(db: &mut Db, name: &str) -> sqlx::Result<Option<u64>> {
    let seq: Option<i64> = find_value!(db, "SELECT seq FROM audit_sinks WHERE name = ?1"; name).await?;
    Ok(seq.map(i64::unsigned_abs))
}

/// Stores the position of a sink.
pub(crate) async fn set_position(db: &mut Db, name: &str, seq: u64) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT OR REPLACE INTO audit_sinks (name, seq) VALUES (?1, ?2)";
        name, i64::try_from(seq).unwrap_or(i64::MAX)
    )
    .await
}
