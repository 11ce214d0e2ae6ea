//! For tests: what no call of the program asks of the catalogue, or changes in it.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, SqliteConnection};

/// Runs statements that have no rows.
pub(crate) async fn run(db: &mut SqliteConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// The rows of a query.
pub(crate) async fn rows<T>(db: &mut SqliteConnection, query: &str) -> Vec<T>
where
    T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    sqlx::query_as(AssertSqlSafe(query)).fetch_all(db).await.unwrap()
}

/// The only column of a query's only row.
pub(crate) async fn value<T>(db: &mut SqliteConnection, query: &str) -> T
where
    (T,): for<'r> FromRow<'r, SqliteRow>,
    T: Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(db)
        .await
        .unwrap()
}
