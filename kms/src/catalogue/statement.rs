//! Statements with their parameters: `rows!(db, "… ?1 … ?2 …"; first, second).await`.
//!
//! A statement is one literal: so `plan_tests.rs` finds it in the source, and asks SQLite how it is carried out.

use sqlx::sqlite::SqliteQueryResult;

/// sqlx's call for a statement and its parameters, which are numbered from ?1.
macro_rules! ask {
    ($query:ident.$fetch:ident, $db:expr, $statement:expr $(; $($parameter:expr),+)?) => {
        sqlx::$query($statement)$($(.bind($parameter))+)?.$fetch(&mut *$db)
    };
}

/// All rows.
macro_rules! rows {
    ($($asked:tt)+) => { $crate::catalogue::statement::ask!(query_as.fetch_all, $($asked)+) };
}

/// The one row that there is.
macro_rules! row {
    ($($asked:tt)+) => { $crate::catalogue::statement::ask!(query_as.fetch_one, $($asked)+) };
}

/// A row, if there is one.
macro_rules! find_row {
    ($($asked:tt)+) => { $crate::catalogue::statement::ask!(query_as.fetch_optional, $($asked)+) };
}

/// All rows' first columns.
macro_rules! values {
    ($($asked:tt)+) => { $crate::catalogue::statement::ask!(query_scalar.fetch_all, $($asked)+) };
}

/// The first column of the one row that there is.
macro_rules! value {
    ($($asked:tt)+) => { $crate::catalogue::statement::ask!(query_scalar.fetch_one, $($asked)+) };
}

/// A row's first column, if there is a row.
macro_rules! find_value {
    ($($asked:tt)+) => { $crate::catalogue::statement::ask!(query_scalar.fetch_optional, $($asked)+) };
}

/// For what a statement does.
macro_rules! execute {
    ($($asked:tt)+) => {
        $crate::catalogue::statement::done($crate::catalogue::statement::ask!(query.execute, $($asked)+))
    };
}

/// For what a statement does; gives to how many rows.
macro_rules! changed {
    ($($asked:tt)+) => {
        $crate::catalogue::statement::rows_of($crate::catalogue::statement::ask!(query.execute, $($asked)+))
    };
}

pub(super) use {ask, changed, execute, find_row, find_value, row, rows, value, values};

pub(super) async fn done(asked: impl Future<Output = sqlx::Result<SqliteQueryResult>>) -> sqlx::Result<()> {
    asked.await.map(drop)
}

pub(super) async fn rows_of(
    asked: impl Future<Output = sqlx::Result<SqliteQueryResult>>,
) -> sqlx::Result<u64> {
    asked.await.map(|done| done.rows_affected())
}
