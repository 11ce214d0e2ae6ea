//! How often wrapped keys and their states have changed.

use sqlx::SqliteConnection;

/// Grows with each change.
pub(crate) async fn count(db: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT changes FROM key_changes")
        .fetch_one(db)
        .await
}
