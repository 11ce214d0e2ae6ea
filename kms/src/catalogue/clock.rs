//! What is kept of the time that was seen to pass.

use sqlx::SqliteConnection;

use crate::timekeeper::Times;

/// What was noted last; none in a new catalogue.
pub(crate) async fn load(db: &mut SqliteConnection) -> Result<Option<Times>, sqlx::Error> {
    sqlx::query_as("SELECT seen, steady, away, away_since, boot, boottime, jump, jump_seen FROM clock")
        .fetch_optional(db)
        .await
}

/// Notes it.
pub(crate) async fn store(db: &mut SqliteConnection, times: &Times) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO clock (one, seen, steady, away, away_since, boot, boottime, jump, jump_seen)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(times.seen)
    .bind(times.steady)
    .bind(times.away)
    .bind(times.away_since)
    .bind(&times.boot)
    .bind(times.boottime)
    .bind(&times.jump)
    .bind(times.jump_seen)
    .execute(db)
    .await?;
    Ok(())
}
