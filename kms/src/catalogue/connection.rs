//! How SQLite is opened and asked.

use std::path::Path;

use sqlx::Connection;
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::Db;
use crate::limits;

/// Whether SQLite's error is one of these (<https://sqlite.org/rescode.html>), whatever else its extended code says.
pub(super) fn is_one_of(error: &dyn DatabaseError, codes: &[i32]) -> bool {
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| codes.contains(&(code & 0xff)))
}

/// Others are not waited for, until the connection goes back to its pool.
pub(super) async fn be_impatient(db: &mut Db) -> sqlx::Result<()> {
    sqlx::raw_sql("PRAGMA busy_timeout = 0").execute(db).await?;
    Ok(())
}

/// Others are waited for again.
pub(super) async fn set_patience(db: &mut Db) -> sqlx::Result<()> {
    let statement = format!(
        "PRAGMA busy_timeout = {}",
        limits::CATALOGUE_BUSY_TIME.as_millis()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(db).await?;
    Ok(())
}

/// Of every connection to a catalogue.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(limits::CATALOGUE_BUSY_TIME)
        .pragma("secure_delete", "ON")
        // What is sorted takes no room on a file system.
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", limits::LOG_PAGES.to_string())
}

/// Whether a connection that comes back has ended its transaction. SQLite rolls back by itself where a medium is full
/// or fails; the `ROLLBACK` that follows fails too, and sqlx believes for ever that a transaction is open.
pub(super) async fn is_reusable(connection: &mut Db) -> sqlx::Result<bool> {
    // A dropped transaction's rollback is done when this is answered. Who has had it may have been impatient.
    set_patience(connection).await?;
    Ok(!connection.is_in_transaction())
}
