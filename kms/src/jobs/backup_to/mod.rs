//! `serve --backup-to`: a backup of the catalogue after each change of keys, in the background.
//!
//! A backup that fails stops no call: `kms status` says so, and it is tried again. Changes that come while one is written are
//! in the next one together.

pub(crate) mod medium;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use self::medium::failed;
use crate::catalogue::database_file::{name_new, remove_database};
use crate::catalogue::{key_changes, schema};
use crate::conditions::Condition;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::host::aside::off_runtime;
use crate::state::StateDir;
use crate::{clock, limits};

const PREFIX: &str = "catalogue-";
const SUFFIX: &str = ".db";
const UNFINISHED: &str = ".catalogue.unfinished";

/// The directory's full path; refuses what is no directory, and one in which others than this user and root may put files. One
/// that is not there, or does not answer, may be there later.
///
/// # Errors
/// [`Code::InvalidPath`].
pub(crate) async fn check(directory: &Path, state: &StateDir) -> Result<PathBuf> {
    let directory = std::path::absolute(directory).map_err(|error| {
        let text = format!("{} cannot be used for --backup-to", directory.display());
        Error::because(Code::InvalidPath, text, error)
    })?;
    let state = state.clone();
    let looked = aside::look(&directory, limits::NAMED_PATH_TIME, move |path| {
        look(path, &state)
    });
    match looked.await {
        Some(Err(error)) if error.code() == Code::InvalidPath => Err(error),
        _ => Ok(directory),
    }
}

/// The directory's path without links.
fn look(directory: &Path, state: &StateDir) -> Result<PathBuf> {
    let path = directory
        .canonicalize()
        .map_err(|error| failed(directory, error))?;
    medium::check(directory, &path, &state.backup_medium())?;
    let found = path.metadata().map_err(|error| failed(directory, error))?;
    let own = rustix::process::geteuid().as_raw();
    let refuse = |why| {
        let text = format!("{} cannot be used for --backup-to: it {why}", directory.display());
        Err(Error::new(Code::InvalidPath, text))
    };
    if !found.is_dir() {
        return refuse("is no directory");
    }
    if path.starts_with(state.root()) {
        return refuse("is in the state directory: take another medium, which is not lost with it");
    }
    if (found.uid() != own && found.uid() != 0) || found.mode() & 0o022 != 0 {
        return refuse("must belong to this user or root, and nobody else may write to it");
    }
    Ok(path)
}

/// The backup that was written last.
struct Last {
    /// The number of changes of keys that it has.
    changes: i64,
    file: PathBuf,
    /// Older ones may have to be removed.
    has_surplus: bool,
}

/// Writes backups as long as the KMS lives: at its start, and when keys have changed.
pub(crate) async fn run(kms: Weak<Kms>, directory: PathBuf) {
    let mut last = None;
    let mut pause = limits::BACKUP_LOOK_TIME;
    loop {
        let Some(living) = kms.upgrade() else { return };
        let start = Instant::now();
        pause = if once(&living, &directory, &mut last).await {
            // Backups take a tenth of the time, however large the catalogue is and however often keys change.
            limits::BACKUP_LOOK_TIME.max(10 * start.elapsed())
        } else {
            (2 * pause).min(limits::BACKUP_RETRY_TIME)
        };
        drop(living);
        tokio::time::sleep(pause).await;
    }
}

/// Writes a backup, unless keys are as they were in the last one, and removes what is surplus; whether all is as it should be.
async fn once(kms: &Kms, directory: &Path, last: &mut Option<Last>) -> bool {
    if let Err(error) = write(kms, directory, last).await {
        let text = format!(
            "no backup can be written to {}: {}",
            directory.display(),
            error.full_message()
        );
        kms.conditions.raise(Condition::BackupFailed, text);
        return false;
    }
    kms.conditions.clear(Condition::BackupFailed);
    let Some(last) = last.as_mut().filter(|last| last.has_surplus) else {
        return true;
    };
    let newest = last.file.clone();
    let remove = move |_: &Path| remove_surplus(&newest);
    let removed = aside::work(directory, limits::STORE_TIME, remove).await;
    last.has_surplus = removed.is_err();
    match removed {
        Ok(()) => kms.conditions.clear(Condition::BackupsNotRemoved),
        Err(error) => {
            let text = format!(
                "backups in {} that are older than the newest {} stay: {}",
                directory.display(),
                limits::BACKUPS_KEPT,
                error.full_message()
            );
            kms.conditions.raise(Condition::BackupsNotRemoved, text);
        }
    }
    !last.has_surplus
}

async fn write(kms: &Kms, directory: &Path, last: &mut Option<Last>) -> Result<()> {
    let changes = {
        let mut db = kms.catalogue.read().await?;
        key_changes::count(&mut db).await?
    };
    if last.as_ref().is_some_and(|last| last.changes == changes) {
        return Ok(());
    }
    // A directory that is not there, or does not answer, costs no copy.
    let state = kms.state.clone();
    let look = move |directory: &Path| look(directory, &state);
    aside::work(directory, limits::NAMED_PATH_TIME, look).await?;
    let copy = copy(&kms.state).await?;
    let size = copy
        .metadata()
        .map_err(|error| failed(&kms.state.unfinished_backup(), error))?
        .len();
    let time = limits::STORE_TIME + Duration::from_secs(size / limits::SLOWEST_MEDIUM);
    let state = kms.state.clone();
    let file = aside::work(directory, time, move |directory| bring(copy, directory, &state)).await?;
    *last = Some(Last {
        changes,
        file,
        has_surplus: true,
    });
    Ok(())
}

/// A copy of the catalogue, in a file without a name. It is made in the state directory, because the catalogue's log cannot be
/// emptied as long as that takes: so no medium must hold it up that the catalogue is not on.
async fn copy(state: &StateDir) -> Result<File> {
    let path = state.unfinished_backup();
    let catalogue = state.catalogue();
    off_runtime(move || check_room(&catalogue)).await?;
    let remove = |path: PathBuf| move || remove_database(&path).map_err(|error| failed(&path, error));
    off_runtime(remove(path.clone())).await?;
    let copied = schema::copy(&state.catalogue(), &path).await;
    let opening = path.clone();
    let opened = off_runtime(move || File::open(&opening).map_err(|error| failed(&opening, error))).await;
    let removed = off_runtime(remove(path)).await;
    copied?;
    removed?;
    opened
}

/// Guests that write to the catalogue's file system must not be without room because a backup is made there.
fn check_room(catalogue: &Path) -> Result<()> {
    let system = rustix::fs::statvfs(catalogue).map_err(|errno| failed(catalogue, errno.into()))?;
    let size = catalogue
        .metadata()
        .map_err(|error| failed(catalogue, error))?
        .len();
    let needed = size + limits::TIGHT_BYTES;
    if system.f_bavail * system.f_frsize < needed {
        return Err(too_little_room(catalogue, needed));
    }
    Ok(())
}

fn too_little_room(catalogue: &Path, needed: u64) -> Error {
    let text = format!(
        "the file system of {} has too little room for a copy: {} MiB must be free",
        catalogue.display(),
        needed.div_ceil(1 << 20)
    );
    Error::new(Code::FileFailed, text)
}

/// Writes a copy of the catalogue to the directory, durably; the file's path.
fn bring(mut copy: File, directory: &Path, state: &StateDir) -> Result<PathBuf> {
    let path = look(directory, state)?;
    let time: String = clock::now()
        .chars()
        .filter(|sign| !matches!(sign, '-' | ':'))
        .collect();
    let file = path.join(format!("{PREFIX}{time}{SUFFIX}"));
    let unfinished = path.join(UNFINISHED);
    let mut fill = || {
        remove_database(&unfinished)?;
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        io::copy(&mut copy, &mut options.open(&unfinished)?)
    };
    let filled = fill().map_err(|error| failed(&unfinished, error));
    let noted = filled.and_then(|_| medium::note(directory, &path, &state.backup_medium()));
    let written = noted.and_then(|()| name_new(&unfinished, &file));
    if written.is_err() {
        let _ = remove_database(&unfinished);
    }
    written.map(|()| file)
}

/// Leaves the newest backups: this one, and those that were written last before it.
fn remove_surplus(newest: &Path) -> Result<()> {
    let directory = newest.parent().unwrap_or(newest);
    let mut others = backups(directory).map_err(|error| failed(directory, error))?;
    others.retain(|(_, path)| path != newest);
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(limits::BACKUPS_KEPT);
    // Each of them, also after one that cannot be removed.
    let removed = others[..surplus]
        .iter()
        .map(|(_, path)| std::fs::remove_file(path).map_err(|error| failed(path, error)));
    removed.fold(Ok(()), Result::and)
}

/// When each was written.
fn backups(directory: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::tests::World;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_that_is_not_there_costs_no_copy() {
        let world = World::new().await;
        // Where a copy is made it would be made out that this is no file.
        let copy = world.kms.state.unfinished_backup();
        std::fs::create_dir(&copy).unwrap();
        let directory = world.kms.state.root().with_file_name("missing");
        let reason = |directory: PathBuf| {
            let kms = &world.kms;
            async move {
                let error = write(kms, &directory, &mut None).await.unwrap_err();
                error.full_message()
            }
        };
        let text = reason(directory.clone()).await;
        assert!(text.contains("missing"), "{text}");
        std::fs::create_dir(&directory).unwrap();
        let text = reason(directory).await;
        assert!(text.contains("backup.db.new"), "{text}");
    }

    #[test]
    fn what_is_needed_is_said_in_whole_mebibytes() {
        let text = too_little_room(Path::new("/state/catalogue.db"), (65 << 20) + 1).full_message();
        assert!(
            text.ends_with("too little room for a copy: 66 MiB must be free"),
            "{text}"
        );
    }

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
