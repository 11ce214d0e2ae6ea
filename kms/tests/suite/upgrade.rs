//! Programs of another version than the catalogue: upgrades, the way back, and backups meanwhile.

use crate::common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::common::mounted::Mounted;
use crate::common::{Kms, json};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

/// The newest migration of an earlier version.
const EARLIER: i64 = 12;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A state whose daemon has ended, and its catalogue as an earlier version would have made it.
fn of_an_earlier_version() -> Kms {
    let mut kms = Kms::active();
    kms.stop();
    let (new, old) = (kms.state().join("catalogue.db"), kms.path("old.db"));
    block_on(make_earlier(&new, Path::new(&old)));
    std::fs::rename(old, new).unwrap();
    kms
}

async fn make_earlier(new: &Path, old: &Path) {
    let migrations = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"))
        .await
        .unwrap();
    let earlier = migrations.iter().filter(|migration| migration.version <= EARLIER);
    let earlier = Migrator::with_migrations(earlier.cloned().collect());
    let options = SqliteConnectOptions::new()
        .filename(old)
        .create_if_missing(true)
        .foreign_keys(false);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    earlier.run_direct(None, &mut db, false).await.unwrap();
    let attach = format!("ATTACH '{}' AS new", new.display());
    sqlx::raw_sql(AssertSqlSafe(attach))
        .execute(&mut db)
        .await
        .unwrap();
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT tables.name, group_concat(columns.name) FROM main.sqlite_schema AS tables,
             pragma_table_info(tables.name, 'main') AS columns
         WHERE tables.type = 'table' AND tables.name <> '_sqlx_migrations' GROUP BY tables.name",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    for (table, columns) in columns {
        let copy = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}");
        sqlx::raw_sql(AssertSqlSafe(copy)).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
}

/// A number from a catalogue that nobody serves.
fn number(path: &Path, query: &'static str) -> i64 {
    block_on(async {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut db).await.unwrap()
    })
}

fn schema(path: &Path) -> i64 {
    number(path, "SELECT max(version) FROM _sqlx_migrations")
}

fn files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
}

#[test]
fn a_backup_leaves_the_catalogue_of_an_earlier_version_as_it_is() {
    let kms = of_an_earlier_version();
    let catalogue = kms.state().join("catalogue.db");
    let passphrase = kms.path("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let (plain, whole) = (kms.path("plain"), kms.path("whole"));
    for words in [
        &["backup", &plain][..],
        &[
            "backup",
            &whole,
            "--with-root-key",
            "--passphrase-file",
            &passphrase,
        ],
    ] {
        let output = kms.run(words);
        assert!(output.status.success(), "{output:?}");
    }
    for path in [&catalogue, Path::new(&plain), Path::new(&whole)] {
        assert_eq!(schema(path), EARLIER, "{}", path.display());
    }
    let recorded = number(&catalogue, "SELECT count(*) FROM audit WHERE call LIKE 'backup%'");
    assert_eq!(recorded, 2);
    // And either is a backup.
    let restored = kms.path("restored");
    let output = kms.run(&[
        "restore",
        "--state",
        &restored,
        &whole,
        "--passphrase-file",
        &passphrase,
    ]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_upgrade_keeps_the_way_back() {
    let mut kms = of_an_earlier_version();
    kms.serve();
    let catalogue = kms.state().join("catalogue.db");
    assert!(schema(&catalogue) > EARLIER);
    let kept = files(&kms.state(), "catalogue.db.before-");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(schema(&kept[0]), EARLIER);
    assert_eq!(kept[0].metadata().unwrap().mode() & 0o777, 0o600);
    // Back, as docs/operating.md has it, and forward again: what has come meanwhile is lost, and nothing else.
    kms.layered("later");
    kms.stop();
    std::fs::rename(&kept[0], &catalogue).unwrap();
    assert_eq!(schema(&catalogue), EARLIER);
    kms.serve();
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    assert_eq!(kms.get("/v1/kms")["state"], "active");
}

#[test]
fn a_catalogue_of_a_later_version_is_neither_served_nor_backed_up() {
    let mut kms = Kms::active();
    kms.stop();
    kms.tamper("INSERT INTO _sqlx_migrations VALUES (9999, 'later', '', 1, x'00', 0)");
    let backup = kms.path("backup");
    for words in [&["backup", &backup][..], &["serve"]] {
        let output = kms.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("error: StateUnusable") && text.contains("later version") && text.contains("9999"),
            "{text}"
        );
    }
    assert!(!Path::new(&backup).exists());
}

fn backing_up(directory: &str) -> Kms {
    let mut kms = Kms::active();
    kms.stop();
    kms.options = vec!["--backup-to".to_owned(), directory.to_owned()];
    kms.serve();
    kms
}

#[test]
fn a_backup_follows_each_change_of_keys() {
    let place = tempfile::tempdir().unwrap();
    let kms = backing_up(place.path().to_str().unwrap());
    let has = |query: &'static str| {
        let backups = files(place.path(), "catalogue-");
        backups.iter().any(|backup| number(backup, query) > 0)
    };
    kms.until("a backup at the start", || has("SELECT 1"));
    // A new lineage is a new key; a plain disk has none.
    let count = files(place.path(), "catalogue-").len();
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": 512, "encrypted": false}),
    );
    kms.layered("data");
    kms.until("a backup with the disk's key", || {
        has("SELECT count(*) FROM lineages")
    });
    kms.make("/v1/keys", json!({"name": "own"}));
    kms.until("a backup with the new key", || {
        has("SELECT count(*) FROM keys WHERE name = 'own'")
    });
    kms.make("/v1/keys/own/disable", json!({}));
    kms.until("a backup with the key's state", || {
        has("SELECT count(*) FROM keys WHERE state = 'Disabled'")
    });
    let backups = files(place.path(), "catalogue-");
    assert!(backups.len() > count);
    for backup in &backups {
        assert_eq!(backup.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            number(
                backup,
                "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"
            ),
            0
        );
    }
    // It is one that `restore` takes.
    let newest = backups.iter().max().unwrap().to_str().unwrap();
    let output = kms.run(&["restore", "--state", &kms.path("restored"), newest]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_backup_that_fails_stops_no_call_and_is_told() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("backups");
    std::fs::create_dir(&directory).unwrap();
    let kms = backing_up(directory.to_str().unwrap());
    let degraded = || message(&kms, "BackupFailed").is_some();
    kms.until("a backup at the start", || {
        !files(&directory, "catalogue-").is_empty()
    });
    assert!(!degraded());
    std::fs::rename(&directory, place.path().join("away")).unwrap();
    kms.layered("data");
    kms.until("it is told", degraded);
    kms.layered("more");
    std::fs::rename(place.path().join("away"), &directory).unwrap();
    kms.until("it is written after all", || !degraded());
}

/// The message of a condition, if that holds.
fn message(kms: &Kms, code: &str) -> Option<String> {
    let status = kms.get("/v1/kms");
    let conditions = status["conditions"].as_array()?.clone();
    let condition = conditions
        .into_iter()
        .find(|condition| condition["code"] == code)?;
    Some(condition["message"].as_str()?.to_owned())
}

#[test]
fn old_backups_that_cannot_be_removed_are_told_and_cause_no_further_ones() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    // Not as a file.
    std::fs::create_dir(path("catalogue-0.db")).unwrap();
    for number in 1..=10 {
        std::fs::write(path(&format!("catalogue-{number}.db")), "").unwrap();
    }
    for number in 0..=10 {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
        let file = std::fs::File::open(path(&format!("catalogue-{number}.db"))).unwrap();
        file.set_modified(time).unwrap();
    }
    let kms = backing_up(place.path().to_str().unwrap());
    kms.until("it is told", || {
        message(&kms, "BackupsNotRemoved").is_some_and(|text| text.contains("catalogue-0.db"))
    });
    assert_eq!(message(&kms, "BackupFailed"), None);
    assert!(!path("catalogue-1.db").exists(), "what can be removed is");
    let written = || {
        let mut files = files(place.path(), "catalogue-");
        files.retain(|file| file.to_string_lossy().ends_with("Z.db"));
        files
    };
    let before = written();
    assert_eq!(before.len(), 1);
    std::fs::remove_dir(path("catalogue-0.db")).unwrap();
    kms.until("it is over", || message(&kms, "BackupsNotRemoved").is_none());
    assert_eq!(written(), before, "keys have not changed");
}

#[test]
fn a_directory_for_backups_that_is_missing_keeps_no_daemon_from_starting() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("backups");
    let kms = backing_up(directory.to_str().unwrap());
    kms.until("it is told", || message(&kms, "BackupFailed").is_some());
    kms.layered("data");
    std::fs::create_dir(&directory).unwrap();
    kms.until("a backup", || message(&kms, "BackupFailed").is_none());
    assert!(
        number(
            &files(&directory, "catalogue-")[0],
            "SELECT count(*) FROM lineages"
        ) > 0
    );
}

#[test]
fn where_a_mount_is_missing_no_backup_is_written_to_the_disk_below() {
    let place = tempfile::tempdir().unwrap();
    let [medium, directory] = ["medium", "backups"].map(|name| place.path().join(name));
    for path in [&medium, &directory] {
        std::fs::create_dir(path).unwrap();
    }
    let Some(mounted) = Mounted::new(&medium, directory.clone()) else {
        return;
    };
    let mut kms = backing_up(directory.to_str().unwrap());
    kms.until("a backup", || !files(&medium, "catalogue-").is_empty());
    // Under a daemon that serves, and when one starts.
    drop(mounted);
    kms.layered("data");
    kms.until("it is told", || message(&kms, "BackupFailed").is_some());
    kms.stop();
    kms.serve();
    kms.until("it is told at once", || {
        message(&kms, "BackupFailed").is_some_and(|text| text.contains("is missing"))
    });
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    let _mounted = Mounted::new(&medium, directory.clone());
    kms.until("it is there again", || message(&kms, "BackupFailed").is_none());
    let has_disk = |path: &PathBuf| number(path, "SELECT count(*) FROM lineages") > 0;
    assert!(files(&medium, "catalogue-").iter().any(has_disk));
}

#[test]
fn a_directory_for_backups_is_nobody_else_s() {
    let mut kms = Kms::active();
    kms.stop();
    let place = tempfile::tempdir().unwrap();
    let open = place.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    for wrong in [&open, &file, &kms.state()] {
        kms.fails(&["serve", "--backup-to", wrong.to_str().unwrap()], "InvalidPath");
    }
}

/// What lies at a disk's path may be another's by now, or of another time.
#[test]
fn after_a_restore_nothing_is_served_until_somebody_says_so() {
    let mut kms = Kms::active();
    let disk = kms.disk("data");
    kms.instance("vm");
    let attachment = kms.attach("data", "vm");
    let backup = kms.path("backup");
    assert!(kms.run(&["backup", &backup]).status.success());
    for pid in kms.backends() {
        common::kill(pid, "KILL");
    }
    kms.kill();
    for pid in kms.backends() {
        common::kill(pid, "KILL");
    }
    let restored = kms.path("restored");
    assert!(
        kms.run(&["restore", "--state", &restored, &backup])
            .status
            .success()
    );
    std::fs::copy(
        kms.state().join("root.key"),
        Path::new(&restored).join("root.key"),
    )
    .unwrap();
    let name = disk["id"].as_str().unwrap();
    std::fs::rename(
        kms.state().join("disks").join(name),
        Path::new(&restored).join("disks").join(name),
    )
    .unwrap();
    std::fs::rename(kms.state(), kms.path("lost")).unwrap();
    std::fs::rename(&restored, kms.state()).unwrap();
    for _ in 0..2 {
        kms.serve();
        let shown = kms.get("/v1/disks/data");
        let warnings = shown["warnings"].to_string();
        assert!(warnings.contains("sealctl backend start data"), "{shown}");
        assert_eq!((&shown["state"], &shown["pid"]), (&json!("in-use"), &json!(null)));
        // The supervisor would have started it before this was answered.
        kms.instance(if warnings.is_empty() { "never" } else { "vm2" });
        kms.delete("/v1/instances/vm2");
        assert!(kms.backends().is_empty());
        kms.kill();
    }
    kms.serve();
    let served = kms.make("/v1/disks/data/start", json!({}));
    assert_eq!(served["attachment"], attachment["id"]);
    assert!(served["pid"].is_number(), "{served}");
    // Again is the same as once, and from then on it is as any other.
    assert_eq!(kms.make("/v1/disks/data/start", json!({}))["pid"], served["pid"]);
    assert_eq!(kms.backends().len(), 1);
    kms.kill();
    for pid in kms.backends() {
        common::kill(pid, "KILL");
    }
    kms.serve();
    kms.until("it is restarted", || kms.get("/v1/disks/data")["pid"].is_number());
    kms.refuses("/v1/disks/none/start", json!({}), "NotFound", None);
    kms.disk("idle");
    kms.refuses("/v1/disks/idle/start", json!({}), "NotAttached", None);
}
