//! The medium of the directory of `--backup-to`. What was mounted there once, and is not now, must not be taken for the empty
//! directory below: backups would lie on a disk that the operator has not chosen, perhaps the catalogue's own.
//!
//! So the state directory has a note: the directory as it was given, NUL, and the mount that backups in it are on. It outlives
//! restarts of the machine, after which a mount is missing most often; a device's number does not.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::host::aside::medium;
use crate::state::write_durably;

/// Looks whether the directory, whose path without links is `path`, is on the mount it was on, or on one that has come since.
///
/// # Errors
/// [`Code::FileFailed`] where it is not.
pub(super) fn check(directory: &Path, path: &Path, note: &Path) -> Result<()> {
    let now = medium(path);
    match noted(directory, note) {
        Some(before) if before != Path::new(&now) && before.starts_with(&now) => {
            let text = format!(
                "{} is on {now}, and what was mounted at {} is missing: mount it or, if that is not to be there any more, \
                 remove {}",
                directory.display(),
                before.display(),
                note.display()
            );
            Err(Error::new(Code::FileFailed, text))
        }
        _ => Ok(()),
    }
}

/// Notes the mount it is on, durably: what a power cut has left of a note would be taken for none.
///
/// # Errors
/// [`Code::FileFailed`].
pub(super) fn note(directory: &Path, path: &Path, note: &Path) -> Result<()> {
    let now = medium(path);
    if noted(directory, note).as_deref() == Some(Path::new(&now)) {
        return Ok(());
    }
    let text = [directory.as_os_str().as_bytes(), b"\0", now.as_bytes()].concat();
    write_durably(note, &text).map_err(|error| failed(note, error))
}

fn noted(directory: &Path, note: &Path) -> Option<PathBuf> {
    let text = std::fs::read(note).ok()?;
    let mount = text
        .strip_prefix(directory.as_os_str().as_bytes())?
        .strip_prefix(b"\0")?;
    Some(PathBuf::from(OsStr::from_bytes(mount)))
}

/// The directory or a file in it cannot be used.
pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    Error::because(
        Code::FileFailed,
        format!("{} cannot be used", path.display()),
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written in place, the link's file would have lost what it had before it had what is new.
    #[test]
    fn a_note_is_another_file_each_time_and_the_one_before_is_whole_until_then() {
        let state = tempfile::tempdir().unwrap();
        let (file, before) = (state.path().join("note"), state.path().join("before"));
        let directory = Path::new("/mnt/copies");
        note(directory, Path::new("/proc"), &file).unwrap();
        std::fs::hard_link(&file, &before).unwrap();
        note(directory, Path::new("/"), &file).unwrap();
        assert_eq!(noted(directory, &file).as_deref(), Some(Path::new("/")));
        assert_eq!(noted(directory, &before).as_deref(), Some(Path::new("/proc")));
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_mount_that_is_missing_is_noticed_and_one_that_comes_is_not_refused() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("note");
        let (directory, path) = (Path::new("/mnt/copies"), Path::new("/proc"));
        check(directory, path, &file).unwrap();
        note(directory, path, &file).unwrap();
        assert_eq!(noted(directory, &file).as_deref(), Some(path));
        check(directory, path, &file).unwrap();
        // As if nothing were mounted at /proc.
        let missing = check(directory, Path::new("/"), &file).unwrap_err();
        assert!(missing.full_message().contains("/proc is missing"), "{missing}");
        check(Path::new("/mnt/others"), Path::new("/"), &file).unwrap();
        // Something else is noted when it is written to.
        note(directory, Path::new("/"), &file).unwrap();
        check(directory, path, &file).unwrap();
        check(directory, Path::new("/"), &file).unwrap();
    }
}
