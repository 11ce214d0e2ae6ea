//! What is kept of the time that was seen to pass.

use super::{Db, execute, find_row};
use crate::timekeeper::Times;

/// What was noted last; none in a new catalogue.
pub(crate) async fn load(db: &mut Db) -> sqlx::Result<Option<Times>> {
    find_row!(
        db,
        "SELECT seen, steady, away, away_since, boot, boottime, jump, jump_seen FROM clock"
    )
    .await
}

/// Notes it.
pub(crate) async fn store(db: &mut Db, times: &Times) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT OR REPLACE INTO clock (one, seen, steady, away, away_since, boot, boottime, jump, jump_seen)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        times.seen, times.steady, times.away, times.away_since, &times.boot, times.boottime, &times.jump,
        times.jump_seen
    )
    .await
}
