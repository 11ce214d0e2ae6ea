//! For tests: what no call of the program asks of the catalogue, or changes in it.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, FromRow, SqliteConnection};

/// What is counted when it comes and goes is as many as there are.
///
/// # Panics
/// Otherwise.
pub(crate) async fn assert_counted(db: &mut SqliteConnection) {
    const COUNTED: &str = "WITH resources AS (
             SELECT key, disks.id, 'disk' AS kind FROM disks JOIN volume_keys ON volume = disks.id
             UNION ALL SELECT key, bin.id, 'disk' FROM bin JOIN volume_keys ON volume = bin.id
             UNION ALL SELECT key, backups.id, 'backup' FROM backups JOIN volume_keys ON volume = backups.id
             UNION ALL SELECT key, snapshots.id, 'snapshot' FROM snapshots JOIN volume_keys USING (volume)
             WHERE state <> 'hidden'
             UNION ALL SELECT key, images.id, 'image' FROM images JOIN snapshots ON snapshots.id = images.snapshot
             JOIN volume_keys USING (volume) WHERE images.state <> 'deleting'
         )";
    // Everything is read as of one moment.
    let mut tx = db.begin().await.unwrap();
    let listed: Vec<(String, String, String)> =
        rows(&mut tx, "SELECT key, id, kind FROM protected ORDER BY key, id").await;
    let there: Vec<_> = rows(
        &mut tx,
        &format!("{COUNTED} SELECT key, id, kind FROM resources ORDER BY key, id"),
    )
    .await;
    assert_eq!(listed, there);
    let counted: Vec<(String, i64, i64, i64)> = rows(
        &mut tx,
        "SELECT id, protected, disks, attached FROM keys ORDER BY id",
    )
    .await;
    let there: Vec<_> = rows(
        &mut tx,
        &format!(
            "{COUNTED} SELECT id, (SELECT count(*) FROM resources WHERE key = keys.id),
                 (SELECT count(*) FROM resources WHERE key = keys.id AND kind = 'disk'),
                 (SELECT count(*) FROM resources WHERE key = keys.id AND id IN (SELECT disk FROM attachments))
             FROM keys ORDER BY id"
        ),
    )
    .await;
    assert_eq!(counted, there);
}

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
