//! The root key as a file of mode 0600 with 64 hexadecimal digits and a line's end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use sealblk_proto::keys::{KEY_BYTES, RootKey};
use sealblk_proto::locked::Locked;

use super::provider::{RootKeyProvider, generate, promote};
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::error::{Code, Error};
use crate::state::{rename_new, sync_directory};

const TEXT_BYTES: usize = 2 * KEY_BYTES;
/// Room for the digits, a line's end, and one byte more that shows that the file is too long.
const READ_BYTES: usize = TEXT_BYTES + 2;

/// The root key in a file of the state directory; the one that a rotation has made lies beside it.
pub(crate) struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The provider of the key at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        KeyFile { path }
    }

    fn staged_path(&self) -> PathBuf {
        self.path.with_extension("key.next")
    }
}

impl RootKeyProvider for KeyFile {
    fn kind(&self) -> RootKeyKind {
        RootKeyKind::File
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn load(&self) -> Result<RootKey, Error> {
        Ok(load(&self.path)?)
    }

    fn staged(&self) -> Result<Option<RootKey>, Error> {
        match load(&self.staged_path()) {
            Err(RootKeyError::Missing(_)) => Ok(None),
            loaded => Ok(Some(loaded?)),
        }
    }

    fn stage(&self) -> Result<RootKey, Error> {
        if let Some(key) = self.staged()? {
            return Ok(key);
        }
        let key = generate()?;
        store(&self.staged_path(), &key)?;
        Ok(key)
    }

    fn promote(&self) -> Result<(), Error> {
        promote(&self.staged_path(), &self.path)
    }
}

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootKeyError {
    #[error("there is no root key at {0}: put the root key file of this state directory back in its place")]
    Missing(PathBuf),
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("{path} has mode {mode:04o}, so that others than its owner can reach it: chmod 0600 {path}")]
    Permissions { path: PathBuf, mode: u32 },
    #[error("{path} belongs to uid {owner}, but this process runs as uid {own}")]
    Owner { path: PathBuf, owner: u32, own: u32 },
    #[error("{0} does not hold a root key, which is 64 hexadecimal digits and at most a line's end")]
    Invalid(PathBuf),
    #[error("{path} cannot be read or written")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<RootKeyError> for Error {
    fn from(error: RootKeyError) -> Self {
        let code = match error {
            RootKeyError::Missing(_) => Code::RootKeyMissing,
            RootKeyError::Permissions { .. } | RootKeyError::Owner { .. } => Code::RootKeyPermissions,
            RootKeyError::NotAFile(_) | RootKeyError::Invalid(_) => Code::RootKeyInvalid,
            RootKeyError::Io { .. } => Code::StateUnusable,
        };
        Error::because(code, "the root key cannot be used", error)
    }
}

/// Reads the root key.
///
/// # Errors
/// [`RootKeyError`]: also where anybody but this process's user could have read or changed it.
pub(crate) fn load(path: &Path) -> Result<RootKey, RootKeyError> {
    let failed = |source| RootKeyError::Io {
        path: path.to_owned(),
        source,
    };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RootKeyError::Missing(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    check_access(path, &file.metadata().map_err(failed)?)?;
    read_digits(file, path)
}

/// Whether nobody but this process's user could have read or changed a file.
///
/// # Errors
/// [`RootKeyError`].
pub(super) fn check_access(path: &Path, metadata: &std::fs::Metadata) -> Result<(), RootKeyError> {
    let path = path.to_owned();
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        return Err(RootKeyError::NotAFile(path));
    }
    if metadata.uid() != own {
        return Err(RootKeyError::Owner {
            path,
            owner: metadata.uid(),
            own,
        });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(RootKeyError::Permissions {
            path,
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(())
}

/// Reads 64 hexadecimal digits and at most a line's end.
///
/// # Errors
/// [`RootKeyError`].
pub(super) fn read_digits(mut file: File, path: &Path) -> Result<RootKey, RootKeyError> {
    let failed = |source| RootKeyError::Io {
        path: path.to_owned(),
        source,
    };
    let mut text = Locked::<[u8; READ_BYTES]>::zeroed().map_err(failed)?;
    let mut length = 0;
    while length < READ_BYTES {
        match file.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let digits = match length {
        TEXT_BYTES => &text[..TEXT_BYTES],
        length if length == TEXT_BYTES + 1 && text[TEXT_BYTES] == b'\n' => &text[..TEXT_BYTES],
        _ => return Err(RootKeyError::Invalid(path.to_owned())),
    };
    RootKey::try_new_with(|key| hex::decode_to_slice(digits, key).map_err(io::Error::other))
        .map_err(|_| RootKeyError::Invalid(path.to_owned()))
}

/// Writes a root key where there is none, durably: the file is there with its whole contents or not at all.
///
/// # Errors
/// [`RootKeyError::Io`], also if the file exists.
pub(crate) fn store(path: &Path, key: &RootKey) -> Result<(), RootKeyError> {
    let failed = |source| RootKeyError::Io {
        path: path.to_owned(),
        source,
    };
    let mut text = Locked::<[u8; TEXT_BYTES + 1]>::zeroed().map_err(failed)?;
    text[TEXT_BYTES] = b'\n';
    hex::encode_to_slice(key.expose(), &mut text[..TEXT_BYTES])
        .map_err(|error| failed(io::Error::other(error)))?;
    let unfinished = unfinished_name(path);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&text[..])?;
        file.sync_all()?;
        rename_new(CWD, &unfinished, path)?;
        path.parent().map_or(Ok(()), sync_directory)
    };
    // Of a process that was stopped in between; the state directory's lock keeps others out.
    let _ = std::fs::remove_file(&unfinished);
    write().map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        failed(error)
    })
}

/// Where a root key is written before it gets its name.
fn unfinished_name(path: &Path) -> PathBuf {
    path.with_extension("key.new")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory_with_key() -> (tempfile::TempDir, PathBuf, RootKey) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let key = RootKey::generate().unwrap();
        store(&path, &key).unwrap();
        (directory, path, key)
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let (_directory, path, key) = directory_with_key();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(load(&path).unwrap().expose(), key.expose());
        assert!(store(&path, &key).is_err(), "it is never overwritten");
        assert!(!unfinished_name(&path).exists(), "no second copy stays");
    }

    #[test]
    fn what_a_stopped_process_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        std::fs::write(unfinished_name(&path), "0123").unwrap();
        assert!(matches!(load(&path), Err(RootKeyError::Missing(_))));
        let key = RootKey::generate().unwrap();
        store(&path, &key).unwrap();
        assert_eq!(load(&path).unwrap().expose(), key.expose());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_reach_is_refused() {
        let (_directory, path, _) = directory_with_key();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(load(&path), Err(RootKeyError::Permissions { .. })),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_file_of_another_owner_is_refused() {
        let (_directory, path, _) = directory_with_key();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
            return; // Only root can give files away.
        }
        assert!(matches!(
            load(&path),
            Err(RootKeyError::Owner { owner: 12345, .. })
        ));
    }

    #[test]
    fn other_contents_are_refused() {
        let (_directory, path, _) = directory_with_key();
        for bad in [
            "",
            "00",
            &"0".repeat(63),
            &"0".repeat(66),
            &"g".repeat(64),
            &format!("{}\n\n", "0".repeat(64)),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(load(&path), Err(RootKeyError::Invalid(_))), "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(load(&path), Err(RootKeyError::Missing(_))));
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(load(&path), Err(RootKeyError::NotAFile(_))));
    }
}
