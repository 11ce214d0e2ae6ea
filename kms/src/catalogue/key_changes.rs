//! How often wrapped keys and their states have changed.

use super::{Db, value};

/// Grows with each change.
pub(crate) async fn count(db: &mut Db) -> sqlx::Result<i64> {
    value!(db, "SELECT changes FROM key_changes").await
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use crate::catalogue::schema::MIGRATIONS;

    /// A change that is not counted is in no backup, and in what was deleted nothing is overwritten.
    #[tokio::test]
    async fn every_change_of_a_table_with_wrapped_keys_is_counted() {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        MIGRATIONS.run_direct(None, &mut db, false).await.unwrap();
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT tables.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
             WHERE tables.type = 'table' AND columns.name LIKE 'wrapped%' ORDER BY 1",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        assert!(tables.contains(&"data_keys".to_owned()), "{tables:?}");
        for table in tables {
            for change in ["INSERT", "UPDATE", "DELETE"] {
                let counted: bool = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1
                     AND sql LIKE '% AFTER ' || ?2 || ' ON %UPDATE key_changes SET changes = changes + 1%')",
                )
                .bind(&table)
                .bind(change)
                .fetch_one(&mut db)
                .await
                .unwrap();
                assert!(counted, "{change} on {table}");
            }
        }
    }
}
