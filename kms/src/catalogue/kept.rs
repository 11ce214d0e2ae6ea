//! Copies of the catalogue from before its schema was changed: the way back to the program before.
//!
//! `catalogue.db.before-NNNN` is the catalogue as it was before the migration of this number. Keys that are destroyed later
//! (rules K11, K12 and K14) are overwritten in it, too. It goes after some days, and when the root key is rotated: it is under the old
//! one.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sqlx::sqlite::SqliteJournalMode;
use sqlx::{Connection, SqliteConnection};

use super::connection::{is_one_of, options};
use super::database::Catalogue;
use super::database_file::remove_database;
use super::schema::{self, Schema};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::state::sync_directory;

/// Opens a catalogue and brings its schema up to date; if that changes it, a copy of it is kept as it was.
///
/// # Errors
/// The catalogue's; [`Code::StateUnusable`] if there is no room for a copy.
pub(super) async fn open(catalogue: &Path) -> Result<Catalogue> {
    // A start that was killed may have left it: deleted keys would stay in it.
    remove(&path(catalogue, "new"));
    // The catalogue stays open: whoever closes it last takes the log's room with it.
    let (opened, schema) = Catalogue::open_as_it_is(catalogue).await?;
    if let Schema::Older(next) = schema {
        keep(catalogue, next).await?;
    }
    opened.bring_up_to_date(schema).await?;
    Ok(opened)
}

/// Keeps a copy of a catalogue as it was before the migration of this number.
async fn keep(catalogue: &Path, next: i64) -> Result<()> {
    let kept = path(catalogue, &format!("{next:04}"));
    let failed = |error: io::Error| {
        let text = format!(
            "the catalogue is of an earlier version, and no copy of it can be kept in {}: make room",
            kept.display()
        );
        Error::because(Code::StateUnusable, text, error)
    };
    let unfinished = path(catalogue, "new");
    if let Err(error) = schema::copy(catalogue, &unfinished).await {
        remove(&unfinished);
        return Err(failed(io::Error::other(error)));
    }
    std::fs::File::open(&unfinished)
        .and_then(|copy| copy.sync_all())
        .and_then(|()| std::fs::rename(&unfinished, &kept))
        .and_then(|()| sync_directory(parent(catalogue)))
        .map_err(failed)?;
    log::info!(
        "the catalogue as it was is kept in {}, for who must go back",
        kept.display()
    );
    let mut all = all(catalogue).map_err(failed)?;
    all.sort();
    let surplus = all.len().saturating_sub(limits::KEPT_CATALOGUES);
    all[..surplus]
        .iter()
        .try_for_each(|path| remove_database(path))
        .map_err(failed)
}

/// Overwrites in the copies the wrapped keys that the catalogue has no more; false if something is left to be tried again. Copies
/// under another root key, and those that SQLite cannot read, are removed.
pub(super) async fn forget_deleted(catalogue: &Path) -> bool {
    let copies = match all(catalogue) {
        Ok(copies) => copies,
        Err(error) => {
            log::warn!("copies of the catalogue are not found: {error}");
            return false;
        }
    };
    let mut done = true;
    for copy in copies {
        done &= match overwrite(&copy, catalogue).await {
            Ok(true) => true,
            Ok(false) => {
                log::info!("{} is removed: it is under another root key", copy.display());
                remove(&copy)
            }
            Err(error) if is_lasting(&error) => {
                log::warn!(
                    "{} is removed, since deleted keys stay in it: {error}",
                    copy.display()
                );
                remove(&copy)
            }
            Err(error) => {
                log::warn!("{}: deleted keys are still in it: {error}", copy.display());
                false
            }
        };
    }
    done
}

/// Whether an error lasts, and is not for want of room, files or locks: SQLite finds no such table, a damaged file, or none of
/// its own.
fn is_lasting(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if is_one_of(&**error, &[1, 11, 26]))
}

async fn overwrite(copy: &Path, catalogue: &Path) -> std::result::Result<bool, sqlx::Error> {
    // A process that has the copy open is not waited for.
    let options = options(copy)
        .journal_mode(SqliteJournalMode::Delete)
        .busy_timeout(Duration::ZERO);
    let mut db = SqliteConnection::connect_with(&options).await?;
    let done = overwrite_in(&mut db, catalogue).await;
    let closed = db.close().await;
    done.and_then(|same_root| closed.map(|()| same_root))
}

/// Overwrites deleted keys in a copy if it is under the same root key as the catalogue, and says whether that is so.
async fn overwrite_in(db: &mut SqliteConnection, catalogue: &Path) -> std::result::Result<bool, sqlx::Error> {
    sqlx::query("ATTACH ?1 AS now")
        .bind(catalogue.to_string_lossy())
        .execute(&mut *db)
        .await?;
    let same_root: bool =
        sqlx::query_scalar("SELECT (SELECT key_check FROM main.meta) IS (SELECT key_check FROM now.meta)")
            .fetch_one(&mut *db)
            .await?;
    if !same_root {
        return Ok(false);
    }
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *db)
        .await?;
    let has = |table: &str| tables.iter().any(|name| name == table);
    let mut statements = vec![
        "UPDATE main.lineages SET wrapped_key = zeroblob(length(wrapped_key)), wrapped_salt = zeroblob(length(wrapped_salt))
         WHERE id NOT IN (SELECT id FROM now.lineages) AND wrapped_salt <> zeroblob(length(wrapped_salt))",
    ];
    statements.push(if has("key_material") {
        "UPDATE main.key_material SET wrapped = zeroblob(length(wrapped))
         WHERE (key, version) NOT IN (SELECT key, version FROM now.key_material) AND wrapped <> zeroblob(length(wrapped))"
    } else {
        "UPDATE main.key_versions SET wrapped = zeroblob(length(wrapped))
         WHERE (key, version) NOT IN (SELECT key, version FROM now.key_material) AND wrapped <> zeroblob(length(wrapped))"
    });
    if has("data_keys") {
        statements.push(
            "UPDATE main.data_keys SET wrapped_key = zeroblob(length(wrapped_key))
             WHERE id NOT IN (SELECT id FROM now.data_keys) AND wrapped_key <> zeroblob(length(wrapped_key))",
        );
    }
    for statement in statements {
        sqlx::query(statement).execute(&mut *db).await?;
    }
    Ok(true)
}

/// Removes the copies that were kept for long enough.
pub(crate) fn remove_old(catalogue: &Path) {
    let is_old = |path: &PathBuf| {
        let made = path.metadata().and_then(|metadata| made(&metadata));
        let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or(Duration::ZERO));
        age.is_ok_and(|age| age > limits::KEPT_CATALOGUE_TIME)
    };
    for copy in all(catalogue)
        .unwrap_or_default()
        .iter()
        .filter(|copy| is_old(copy))
    {
        log::info!("{} was kept for long enough, and is removed", copy.display());
        remove(copy);
    }
}

/// When a copy was made; where the file system does not say, when it was written to last, which is later where keys have been
/// overwritten in it.
fn made(metadata: &Metadata) -> io::Result<SystemTime> {
    metadata.created().or_else(|_| metadata.modified())
}

/// Removes a copy, and says whether it is gone.
fn remove(copy: &Path) -> bool {
    let removed = remove_database(copy);
    if let Err(error) = &removed {
        log::warn!("{} cannot be removed: {error}", copy.display());
    }
    removed.is_ok()
}

fn all(catalogue: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = path(catalogue, "").into_os_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent(catalogue))? {
        let path = entry?.path();
        let number = path
            .as_os_str()
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes());
        if number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn parent(catalogue: &Path) -> &Path {
    catalogue.parent().unwrap_or(catalogue)
}

fn path(catalogue: &Path, migration: &str) -> PathBuf {
    let mut name = catalogue.as_os_str().to_owned();
    name.push(".before-");
    name.push(migration);
    name.into()
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::catalogue::schema::MIGRATIONS;
    use crate::catalogue::tests::{first_version, migrator_until};
    use crate::catalogue::{lineages, meta};

    fn newest() -> i64 {
        MIGRATIONS
            .iter()
            .map(|migration| migration.version)
            .max()
            .unwrap()
    }

    #[tokio::test]
    async fn the_catalogue_before_a_migration_is_kept_and_its_program_opens_it() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = first_version(directory.path()).await;
        open(&catalogue).await.unwrap().close().await;
        // Nothing more is to be kept.
        open(&catalogue).await.unwrap().close().await;
        let kept = all(&catalogue).unwrap();
        assert_eq!(kept, [path(&catalogue, "0002")]);
        // As the program of the first version does: it knows no other migration.
        let mut db = SqliteConnection::connect_with(&options(&kept[0])).await.unwrap();
        migrator_until(1).run_direct(None, &mut db, false).await.unwrap();
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM disks ORDER BY name")
            .fetch_all(&mut db)
            .await
            .unwrap();
        assert_eq!(names, ["data", "plain"]);
    }

    #[tokio::test]
    async fn a_few_are_kept_and_for_some_days() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = first_version(directory.path()).await;
        for number in 3..8 {
            std::fs::write(path(&catalogue, &format!("{number:04}")), "").unwrap();
        }
        std::fs::write(path(&catalogue, "mine"), "").unwrap();
        open(&catalogue).await.unwrap().close().await;
        let mut kept = all(&catalogue).unwrap();
        kept.sort();
        assert_eq!(
            kept,
            ["0005", "0006", "0007"].map(|number| path(&catalogue, number))
        );
        assert!(path(&catalogue, "mine").exists());
        remove_old(&catalogue);
        assert_eq!(all(&catalogue).unwrap().len(), 3);
    }

    #[test]
    fn a_file_system_without_a_time_of_birth_has_an_age_all_the_same() {
        // That of `/proc` has none.
        let metadata = Path::new("/proc/version").metadata().unwrap();
        assert!(made(&metadata).is_ok());
    }

    #[tokio::test]
    async fn rule_k14_a_key_that_is_deleted_later_is_overwritten_in_the_copies() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = first_version(directory.path()).await;
        let opened = open(&catalogue).await.unwrap();
        let copy = path(&catalogue, "0002");
        let wrapped = || async {
            let mut db =
                SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&copy).read_only(true))
                    .await
                    .unwrap();
            let keys: Vec<(Vec<u8>, Vec<u8>)> =
                sqlx::query_as("SELECT wrapped_key, wrapped_salt FROM lineages")
                    .fetch_all(&mut db)
                    .await
                    .unwrap();
            keys
        };
        opened.forget_destroyed().await;
        assert_eq!(wrapped().await, [(vec![1], vec![2])]);
        let mut tx = opened.write().await.unwrap();
        for statement in [
            "DELETE FROM intents",
            "DELETE FROM attachments",
            "DELETE FROM services",
            "DELETE FROM disks WHERE id = 'disk-1'",
            "DELETE FROM volumes WHERE id = 'disk-1'",
        ] {
            sqlx::query(statement).execute(&mut *tx).await.unwrap();
        }
        lineages::delete(&mut tx, "lin-1").await.unwrap();
        tx.commit().await.unwrap();
        // A call does not wait for that.
        opened.forget_deleted().await;
        assert_eq!(wrapped().await, [(vec![1], vec![2])]);
        // Somebody else reads the copy: it stays, and is tried again.
        let options = SqliteConnectOptions::new().filename(&copy);
        let mut reader = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT * FROM lineages")
            .execute(&mut reader)
            .await
            .unwrap();
        opened.forget_rest().await.unwrap();
        assert_eq!(wrapped().await, [(vec![1], vec![2])]);
        reader.close().await.unwrap();
        opened.forget_rest().await.unwrap();
        assert_eq!(wrapped().await, [(vec![0], vec![0])]);
    }

    #[tokio::test]
    async fn rule_k12_copies_under_another_root_key_go() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = first_version(directory.path()).await;
        let opened = open(&catalogue).await.unwrap();
        opened.forget_destroyed().await;
        assert_eq!(all(&catalogue).unwrap().len(), 1);
        let mut tx = opened.write().await.unwrap();
        meta::set_key_check(&mut tx, b"another").await.unwrap();
        tx.commit().await.unwrap();
        // As the start after one that was killed in the middle of a rotation.
        opened.forget_destroyed().await;
        assert_eq!(all(&catalogue).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn rule_k14_no_start_leaves_a_copy_that_was_not_finished() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = first_version(directory.path()).await;
        Catalogue::open(&catalogue).await.unwrap().close().await;
        let unfinished = path(&catalogue, "new");
        std::fs::write(&unfinished, "keys").unwrap();
        open(&catalogue).await.unwrap().close().await;
        assert!(!unfinished.exists());
    }

    #[tokio::test]
    async fn a_catalogue_of_a_later_version_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.db");
        let catalogue = Catalogue::create(&path).await.unwrap();
        let later = newest() + 1;
        let mut db = catalogue.write_alone().await.unwrap();
        sqlx::query("INSERT INTO _sqlx_migrations VALUES (?1, 'later', '', 1, x'00', 0)")
            .bind(later)
            .execute(&mut *db)
            .await
            .unwrap();
        drop(db);
        catalogue.close().await;
        for outcome in [
            Catalogue::open(&path).await.err().map(Error::from),
            Catalogue::open_as_it_is(&path).await.err().map(Error::from),
        ] {
            let text = outcome.unwrap().full_message();
            assert!(text.contains(&format!("schema {later}")), "{text}");
        }
    }
}
