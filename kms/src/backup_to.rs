//! `serve --backup-to`: a backup of the catalogue after each change of keys, in the background.
//!
//! A backup that fails stops no call: `kms status` says so, and it is tried again. Changes that come while one is written are
//! in the next one together.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::backup;
use crate::catalogue::{key_changes, schema};
use crate::conditions::Condition;
use crate::error::{Code, Error, Result};
use crate::init::remove_database;
use crate::operation::{Kms, off_runtime};
use crate::state::StateDir;
use crate::{clock, limits};

const PREFIX: &str = "catalogue-";
const SUFFIX: &str = ".db";
const UNFINISHED: &str = ".catalogue.unfinished";

/// Checks the directory, in which nobody but this user, or root, may put files.
///
/// # Errors
/// [`Code::InvalidPath`].
pub(crate) async fn check(directory: &Path, state: &StateDir) -> Result<PathBuf> {
    let (wanted, root) = (directory.to_owned(), state.root().to_owned());
    let looked = off_runtime(move || look(&wanted, &root));
    match tokio::time::timeout(limits::BACKEND_TIME, looked).await {
        Ok(checked) => checked,
        Err(_) => Err(unusable(directory, "does not answer")),
    }
}

fn unusable(directory: &Path, why: &str) -> Error {
    let text = format!("{} cannot be used for --backup-to: it {why}", directory.display());
    Error::new(Code::InvalidPath, text)
}

fn look(directory: &Path, state: &Path) -> Result<PathBuf> {
    let failed = |error| {
        let text = format!("{} cannot be used for --backup-to", directory.display());
        Error::because(Code::InvalidPath, text, error)
    };
    let path = directory.canonicalize().map_err(failed)?;
    let found = path.metadata().map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    let refuse = |why| Err(unusable(directory, why));
    if !found.is_dir() {
        return refuse("is no directory");
    }
    if path.starts_with(state) {
        return refuse("is in the state directory: take another medium, which is not lost with it");
    }
    if (found.uid() != own && found.uid() != 0) || found.mode() & 0o022 != 0 {
        return refuse("must belong to this user or root, and nobody else may write to it");
    }
    // Whether it can be written to, and what a daemon has left that was stopped.
    let unfinished = path.join(UNFINISHED);
    remove_database(&unfinished).map_err(failed)?;
    std::fs::File::create_new(&unfinished).map_err(failed)?;
    std::fs::remove_file(&unfinished).map_err(failed)?;
    Ok(path)
}

/// Writes backups as long as the KMS lives: at its start, and when keys have changed.
pub(crate) async fn run(kms: Weak<Kms>, directory: PathBuf) {
    let mut written = None;
    let mut pause = limits::BACKUP_LOOK_TIME;
    loop {
        let Some(living) = kms.upgrade() else { return };
        let start = Instant::now();
        match once(&living, &directory, written).await {
            Ok(changes) => {
                written = Some(changes);
                living.conditions.clear(Condition::BackupFailed);
                // Backups take a tenth of the time, however large the catalogue is and however often keys change.
                pause = limits::BACKUP_LOOK_TIME.max(10 * start.elapsed());
            }
            Err(error) => {
                let text = format!(
                    "no backup can be written to {}: {}",
                    directory.display(),
                    error.full_message()
                );
                living.conditions.raise(Condition::BackupFailed, text);
                pause = (2 * pause).min(limits::BACKUP_RETRY_TIME);
            }
        }
        drop(living);
        tokio::time::sleep(pause).await;
    }
}

/// Writes a backup, unless keys are as they were in the last one; the number of changes that it has.
async fn once(kms: &Kms, directory: &Path, written: Option<i64>) -> Result<i64> {
    let changes = {
        let mut db = kms.catalogue.read().await?;
        key_changes::count(&mut db).await?
    };
    if written == Some(changes) {
        return Ok(changes);
    }
    let unfinished = directory.join(UNFINISHED);
    let earlier = unfinished.clone();
    off_runtime(move || remove_database(&earlier).map_err(|error| failed(&earlier, error))).await?;
    schema::copy(&kms.state.catalogue(), &unfinished).await?;
    let time: String = clock::now()
        .chars()
        .filter(|sign| !matches!(sign, '-' | ':'))
        .collect();
    let file = directory.join(format!("{PREFIX}{time}{SUFFIX}"));
    off_runtime(move || {
        backup::name(&unfinished, &file)?;
        remove_surplus(&file).map_err(|error| failed(&file, error))
    })
    .await?;
    Ok(changes)
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::because(
        Code::FileFailed,
        format!("{} cannot be used", path.display()),
        error,
    )
}

/// Leaves the newest backups: this one, and those that were written last before it.
fn remove_surplus(newest: &Path) -> std::io::Result<()> {
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(newest.parent().unwrap_or(newest))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && path != newest {
            others.push((path.metadata()?.modified()?, path));
        }
    }
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(limits::BACKUPS_KEPT);
    others[..surplus]
        .iter()
        .try_for_each(|(_, path)| std::fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_backups_stay_and_nothing_of_others_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for number in 0..limits::BACKUPS_KEPT + 3 {
            let file = std::fs::File::create(path(&format!("catalogue-{number:02}.db"))).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            file.set_modified(time).unwrap();
        }
        std::fs::write(path("catalogue.db"), "").unwrap();
        // The clock was set back before the newest one.
        let newest = path("catalogue-00.db");
        remove_surplus(&newest).unwrap();
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, limits::BACKUPS_KEPT + 1);
        assert!(newest.exists() && path("catalogue.db").exists());
        assert!(!path("catalogue-01.db").exists() && !path("catalogue-03.db").exists());
        assert!(path("catalogue-04.db").exists());
    }
}
