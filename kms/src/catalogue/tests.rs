//! Full media and missing guards.

use std::process::Command;

use super::*;

async fn write_blob(catalogue: &Catalogue, bytes: u32) -> Result<(), sqlx::Error> {
    let mut tx = catalogue.write().await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS blobs (blob BLOB)")
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO blobs VALUES (zeroblob(?))")
        .bind(bytes)
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM blobs").execute(&mut *tx).await?;
    match tx.commit().await {
        Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// SQLite ends the transaction by itself in this case, behind the back of sqlx.
#[tokio::test]
async fn writes_go_on_after_one_that_sqlite_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::create(&directory.path().join("catalogue.db"))
        .await
        .unwrap();
    for explicit in [true, false] {
        let mut tx = catalogue.write().await.unwrap();
        // Any statement may do so; this one says it.
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
        if explicit {
            assert!(tx.rollback().await.is_err());
        } else {
            drop(tx);
        }
        write_blob(&catalogue, 1).await.unwrap();
    }
}

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(directory.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Tmpfs(directory))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn writes_go_on_after_the_medium_was_full() {
    let Some(medium) = Tmpfs::mount() else {
        eprintln!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let catalogue = Catalogue::create(&medium.0.path().join("catalogue.db"))
        .await
        .unwrap();
    let ballast = medium.0.path().join("ballast");
    assert!(
        std::fs::write(&ballast, vec![1; 1 << 20]).is_err(),
        "it is full now"
    );
    for _ in 0..3 {
        assert!(write_blob(&catalogue, 600_000).await.is_err());
    }
    std::fs::remove_file(&ballast).unwrap();
    write_blob(&catalogue, 1000).await.unwrap();
}

#[tokio::test]
async fn a_catalogue_without_its_triggers_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.db");
    for statement in [
        "DROP TRIGGER audit_is_never_cut",
        "DROP TRIGGER disks_keep_encryption; CREATE TRIGGER disks_keep_encryption BEFORE UPDATE ON disks BEGIN SELECT 1; END",
    ] {
        let catalogue = Catalogue::create(&path).await.unwrap();
        catalogue.close().await;
        Catalogue::open(&path).await.unwrap().close().await;
        let catalogue = Catalogue::open(&path).await.unwrap();
        let mut db = catalogue.write_alone().await.unwrap();
        sqlx::raw_sql(statement).execute(&mut *db).await.unwrap();
        drop(db);
        catalogue.close().await;
        assert!(matches!(
            Catalogue::open(&path).await,
            Err(CatalogueError::Unguarded(_))
        ));
        std::fs::remove_file(&path).unwrap();
    }
}
