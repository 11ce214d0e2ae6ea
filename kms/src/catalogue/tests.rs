//! Full media and missing guards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::kinds::{DiskKind, DiskType, Store};
use super::states::DiskState;
use sqlx::sqlite::SqliteSynchronous;
use sqlx::{Connection, SqliteConnection};

use super::connection::options;
use super::failure::CatalogueError;
use super::schema::MIGRATIONS;
use super::*;
use crate::limits;

async fn write_blob(catalogue: &Catalogue, bytes: u32) -> Result<(), sqlx::Error> {
    let mut tx = catalogue.write().await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS blobs (blob BLOB)")
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO blobs VALUES (zeroblob(?1))")
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

/// It had given up the room, and ended before it kept a reserve: the next start had none.
#[tokio::test]
async fn a_start_that_ends_early_keeps_room_for_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.db");
    let spare = directory.path().join("catalogue.db.spare");
    let catalogue = Catalogue::create(&path).await.unwrap();
    catalogue.close().await;
    assert!(!spare.exists(), "nobody has asked for it");
    std::fs::write(&spare, []).unwrap();
    let catalogue = Catalogue::open(&path).await.unwrap();
    catalogue.close().await;
    assert_eq!(spare.metadata().unwrap().len(), limits::SPARE_BYTES);
}

/// What was answered of a backup was its state before the copy's end, and the copy as it was after.
#[tokio::test]
async fn nothing_comes_between_the_statements_of_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::create(&directory.path().join("catalogue.db"))
        .await
        .unwrap();
    write_blob(&catalogue, 1).await.unwrap();
    async fn blobs(db: &mut Db) -> i64 {
        let asked = sqlx::query_scalar("SELECT count(*) FROM blobs").fetch_one(db);
        asked.await.unwrap()
    }
    let mut snapshot = catalogue.snapshot().await.unwrap();
    assert_eq!(blobs(&mut snapshot).await, 0);
    let mut tx = catalogue.write().await.unwrap();
    let insert = sqlx::query("INSERT INTO blobs VALUES ('one')").execute(&mut *tx);
    insert.await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(blobs(&mut snapshot).await, 0);
    drop(snapshot);
    let mut db = catalogue.read().await.unwrap();
    assert_eq!(blobs(&mut db).await, 1);
}

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
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
        std::fs::write(&ballast, vec![1; 4 << 20]).is_err(),
        "it is full now"
    );
    for _ in 0..3 {
        assert!(write_blob(&catalogue, 4 << 20).await.is_err());
    }
    std::fs::remove_file(&ballast).unwrap();
    write_blob(&catalogue, 1000).await.unwrap();
}

#[tokio::test]
async fn a_catalogue_without_its_triggers_and_views_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.db");
    for statement in [
        "DROP TRIGGER audit_is_never_cut",
        "DROP VIEW volume_keys; CREATE VIEW volume_keys AS SELECT id AS volume, NULL AS key FROM volumes",
        "DROP TRIGGER volumes_keep_encryption; CREATE TRIGGER volumes_keep_encryption BEFORE UPDATE ON volumes BEGIN SELECT 1; END",
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

/// A catalogue of the first version, with something in every table.
const FIRST: &str = "
INSERT INTO meta VALUES (1, 'kms-1', 'eu-1', 'eu-1a', 'sealblk', x'00', 7, '2026-01-01T00:00:00.000Z');
INSERT INTO accounts VALUES ('default', 't', 't');
INSERT INTO principals VALUES (0, 'default');
INSERT INTO roles VALUES (0, 'admin');
INSERT INTO keys VALUES ('key-1', 'default', 'eu-1', 'service-eu-1', 'service', 'Enabled', 't');
INSERT INTO key_versions VALUES ('key-1', 1, x'00', 't');
INSERT INTO lineages VALUES ('lin-1', 'default', 'key-1', 1, x'01', x'02', 't');
INSERT INTO disks VALUES ('disk-1', 'default', 'data', 'attaching', 1, 1024, 'raw', '/dev/x', '{}', 'eu-1a', 'lin-1', 't');
INSERT INTO disks VALUES ('disk-2', 'default', 'plain', 'available', 0, 512, 'raw', NULL, NULL, 'eu-1a', NULL, 't');
INSERT INTO instances VALUES ('ins-1', 'default', 'vm', 'eu-1a', 0, 0, 't');
INSERT INTO attachments VALUES ('att-1', 'default', 'disk-1', 'ins-1', 4, 0, '/s', 1, 2, 384, 1, 6, x'03', x'04', 't', 8, 9, 'b');
INSERT INTO intents VALUES ('op-1', 'default', 'attach', 'disk-1', 'att-1', 0, 1, 'req-1', 'key-1', 'attach', '2026-01', 't');
INSERT INTO usage VALUES ('default', 'eu-1', '2026-01', 'attach', 3);
";

/// The migrations that a program knew when this was the newest one.
pub(super) fn migrator_until(version: i64) -> sqlx::migrate::Migrator {
    let known = MIGRATIONS.iter().filter(|migration| migration.version <= version);
    sqlx::migrate::Migrator::with_migrations(known.cloned().collect())
}

/// Makes [`FIRST`] in the directory.
pub(super) async fn first_version(directory: &Path) -> PathBuf {
    let path = directory.join("catalogue.db");
    let catalogue = Catalogue::connect(&path, options(&path).create_if_missing(true))
        .await
        .unwrap();
    migrator_until(1).run(&catalogue.writer).await.unwrap();
    let mut db = catalogue.write_alone().await.unwrap();
    sqlx::raw_sql(FIRST).execute(&mut *db).await.unwrap();
    drop(db);
    catalogue.close().await;
    path
}

#[tokio::test]
async fn a_catalogue_of_the_first_version_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = first_version(directory.path()).await;
    let catalogue = Catalogue::open(&path).await.unwrap();
    let mut db = catalogue.write_alone().await.unwrap();
    let dangling = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut *db)
        .await
        .unwrap();
    assert!(dangling.is_empty());
    let disk = disks::get(&mut db, "disk-1").await.unwrap();
    assert_eq!(
        (disk.name.as_str(), disk.state, disk.encrypted, disk.size),
        ("data", DiskState::Attaching, true, 1024)
    );
    assert_eq!((disk.kind, disk.disk_type), (DiskKind::Cloud, DiskType::Ssd));
    assert_eq!(
        (
            disk.path.as_deref(),
            disk.identity.as_deref(),
            disk.key.as_deref()
        ),
        (Some("/dev/x"), Some("{}"), Some("key-1"))
    );
    assert_eq!(disk.attachment.as_deref(), Some("att-1"));
    let plain = disks::get(&mut db, "disk-2").await.unwrap();
    assert_eq!(
        (plain.encrypted, plain.lineage, plain.store),
        (false, None, Store::Raw)
    );
    let attachment = attachments::find(&mut db, "default", "att-1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (attachment.service.as_str(), attachment.serial, attachment.start),
        ("att-1", 6, true)
    );
    let service = services::of_disk(&mut db, "disk-1").await.unwrap().unwrap();
    assert_eq!(
        (
            service.serial,
            service.token,
            service.next_token,
            service.backend_boot
        ),
        (6, Some(vec![3]), Some(vec![4]), Some("b".to_owned()))
    );
    let intent = intents::all(&mut db).await.unwrap().intents.pop().unwrap();
    assert_eq!(
        (
            intent.disk.as_str(),
            intent.metered.as_deref(),
            intent.made_key.as_deref()
        ),
        ("disk-1", Some("attach"), Some("key-1"))
    );
    assert_eq!(usage::of_account(&mut db, "default").await.unwrap()[0].calls, 3);
    behind::assert_counted(&mut db).await;
    let key = keys::find(&mut db, "default", "key-1").await.unwrap().unwrap();
    assert_eq!((key.disks, key.attached), (1, 1));
    let refused = sqlx::query("UPDATE volumes SET encrypted = 0, lineage = NULL")
        .execute(&mut *db)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("D03"), "{refused}");
}

/// What was deleted goes from the log's room, also from what is behind its end, and the room stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_with_a_reserve_forgets_what_was_deleted_and_keeps_its_room() {
    const SECRET: &[u8] = b"a secret that is deleted";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.db");
    let log = directory.path().join("catalogue.db-wal");
    let catalogue = Catalogue::create(&path).await.unwrap();
    catalogue.keep_reserve().await;
    let room = log.metadata().unwrap().len();
    assert!(room >= limits::RESERVE_PAGES.unsigned_abs() * 4096, "{room}");
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(SECRET.len()).any(|window| window == SECRET)
    };
    let written = async |statement: &'static str, value: &[u8]| {
        let mut tx = catalogue.write().await.unwrap();
        sqlx::query(statement)
            .bind(value)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    };
    for _ in 0..2 {
        let secrets = SECRET.repeat(64 * 4096 / SECRET.len());
        written("INSERT INTO reserve (room) VALUES (?1)", &secrets).await;
        written("DELETE FROM reserve WHERE ?1 IS NOT NULL", b"").await;
        // The log begins anew, and is shorter.
        let mut db = catalogue.write_alone().await.unwrap();
        sqlx::raw_sql("PRAGMA wal_checkpoint(RESTART)")
            .execute(&mut *db)
            .await
            .unwrap();
        drop(db);
        written("INSERT INTO reserve (room) VALUES (?1)", SECRET).await;
        written("DELETE FROM reserve WHERE ?1 IS NOT NULL", b"").await;
        assert!(holds(&log));
        catalogue.forget_deleted().await;
        assert!(!holds(&log) && !holds(&path));
        assert_eq!(log.metadata().unwrap().len(), room);
        // Without a beginning in between.
        written("INSERT INTO reserve (room) VALUES (?1)", SECRET).await;
        written("DELETE FROM reserve WHERE ?1 IS NOT NULL", b"").await;
        assert!(holds(&log));
        catalogue.forget_deleted().await;
        assert!(!holds(&log) && !holds(&path));
    }
    assert_eq!(catalogue.reserve_left(), 100);
}

async fn with_reserve(directory: &Path) -> Catalogue {
    let path = directory.join("catalogue.db");
    let catalogue = Catalogue::create(&path).await.unwrap();
    catalogue.keep_reserve().await;
    let mut db = catalogue.write_alone().await.unwrap();
    sqlx::raw_sql("CREATE TABLE written (number INTEGER NOT NULL)")
        .execute(&mut *db)
        .await
        .unwrap();
    drop(db);
    catalogue
}

/// Another process, such as `sealblk-kms backup`, committed to the log between the look at its end and the zeros behind that: they
/// went over its frames, and the catalogue was malformed.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_commit_while_the_log_is_overwritten_stays() {
    const ROUNDS: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let catalogue = with_reserve(directory.path()).await;
    let path = directory.path().join("catalogue.db");
    // Not for a medium, so that many fall between two steps of the daemon's.
    let others = options(&path).synchronous(SqliteSynchronous::Off);
    let end = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&end);
    let others = tokio::spawn(async move {
        let mut db = SqliteConnection::connect_with(&others).await.unwrap();
        let mut commits = 0;
        while !ended.load(Ordering::Relaxed) {
            let statement = sqlx::query("INSERT INTO written VALUES (?1)").bind(commits);
            statement.execute(&mut db).await.unwrap();
            commits += 1;
            if commits % 16 == 0 {
                // While that is under way, the daemon is not told where the log ends.
                let checkpoint = sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)");
                checkpoint.execute(&mut db).await.unwrap();
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        db.close().await.unwrap();
        commits
    });
    for _ in 0..ROUNDS {
        catalogue.forget_deleted().await;
    }
    end.store(true, Ordering::Relaxed);
    let commits = others.await.unwrap();
    let mut db = SqliteConnection::connect_with(&options(&path)).await.unwrap();
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM written")
        .fetch_one(&mut db)
        .await
        .unwrap();
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!((found, sound.as_str()), (commits, "ok"));
}

/// Whoever swept had a deadline: the zeros were still written when the next had the connection, which waited for nobody any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_overwriting_of_the_log_that_nobody_waits_for_disturbs_no_other_write() {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = with_reserve(directory.path()).await;
    for number in 0..150 {
        let patience = Duration::from_micros(25 * number);
        let _ = tokio::time::timeout(patience, catalogue.forget_deleted()).await;
        let mut tx = catalogue.write().await.unwrap();
        let patience: i64 = sqlx::query_scalar("PRAGMA busy_timeout")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(
            u128::try_from(patience),
            Ok(limits::CATALOGUE_BUSY_TIME.as_millis())
        );
        let statement = sqlx::query("INSERT INTO written VALUES (?1)");
        statement
            .bind(number.cast_signed())
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    let mut db = catalogue.read().await.unwrap();
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM written")
        .fetch_one(&mut *db)
        .await
        .unwrap();
    assert_eq!(found, 150);
}

/// Numbers in the log's header are each connection's own: they do not say how far the log has ever been written.
#[tokio::test(flavor = "multi_thread")]
async fn rule_k14_what_was_deleted_goes_from_the_log_whoever_has_written_it() {
    const SECRET: &[u8] = b"a secret that is deleted";
    let directory = tempfile::tempdir().unwrap();
    let catalogue = with_reserve(directory.path()).await;
    let path = directory.path().join("catalogue.db");
    catalogue.forget_deleted().await;
    let mut other = SqliteConnection::connect_with(&options(&path)).await.unwrap();
    sqlx::query("INSERT INTO reserve (room) VALUES (?1)")
        .bind(SECRET.repeat(64 * 4096 / SECRET.len()))
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::raw_sql("DELETE FROM reserve; PRAGMA wal_checkpoint(RESTART)")
        .execute(&mut other)
        .await
        .unwrap();
    catalogue.forget_deleted().await;
    let log = std::fs::read(directory.path().join("catalogue.db-wal")).unwrap();
    assert!(!log.windows(SECRET.len()).any(|window| window == SECRET));
}
