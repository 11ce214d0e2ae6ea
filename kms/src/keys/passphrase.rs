//! Passphrases: from a file or the terminal, and the key that comes of one (Argon2id, RFC 9106).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use sealblk_proto::keys::{KEY_BYTES, RootKey};
use sealblk_proto::locked::wipe_dead_stack;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::limits;

/// A passphrase; wiped when dropped.
pub(crate) struct Passphrase(Zeroizing<Vec<u8>>);

/// Cost of the derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

/// RFC 9106, section 4, second recommended option.
pub(crate) const COST: Cost = Cost {
    memory_kib: 64 * 1024,
    passes: 3,
    lanes: 4,
};
/// Most that a backup can ask for: 1 GiB, and so many passes and lanes.
const COST_MOST: Cost = Cost {
    memory_kib: 1024 * 1024,
    passes: 16,
    lanes: 16,
};

impl Passphrase {
    /// From the first line of a file, or from the terminal; asked for twice if it is `new`.
    ///
    /// # Errors
    /// [`Code::InvalidPassphrase`], [`Code::FileFailed`].
    pub(crate) fn obtain(file: Option<&Path>, new: bool) -> Result<Self> {
        let passphrase = match file {
            Some(path) => {
                let failed =
                    |error| Error::because(Code::FileFailed, "the passphrase's file cannot be read", error);
                read_line(File::open(path).map_err(failed)?).map_err(failed)?
            }
            None => prompt(new)?,
        };
        let length = passphrase.0.len();
        if new && length < limits::PASSPHRASE_BYTES_LEAST || length > limits::PASSPHRASE_BYTES_MOST {
            let (least, most) = (limits::PASSPHRASE_BYTES_LEAST, limits::PASSPHRASE_BYTES_MOST);
            return Err(Error::new(
                Code::InvalidPassphrase,
                format!("a passphrase has {least} to {most} bytes"),
            ));
        }
        Ok(passphrase)
    }

    /// The key that wraps a root key in a backup.
    ///
    /// # Errors
    /// [`Code::BackupInvalid`] for a cost that is none, or too much.
    pub(crate) fn derive(&self, salt: &[u8], cost: Cost) -> Result<RootKey> {
        let invalid = || {
            Error::new(
                Code::BackupInvalid,
                "the backup's passphrase parameters make no sense",
            )
        };
        let most = COST_MOST;
        if cost.memory_kib > most.memory_kib || cost.passes > most.passes || cost.lanes > most.lanes {
            return Err(invalid());
        }
        let params =
            Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_BYTES)).map_err(|_| invalid())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let key = RootKey::try_new_with(|key| {
            argon2
                .hash_password_into(&self.0, salt, key)
                .map_err(|error| io::Error::other(error.to_string()))
        });
        wipe_dead_stack();
        key.map_err(|error| Error::because(Code::Internal, "the passphrase's key cannot be derived", error))
    }
}

fn read_line(source: impl Read) -> io::Result<Passphrase> {
    // Allocated at once, so that no copy is left behind by growing.
    let mut line = Zeroizing::new(Vec::with_capacity(limits::PASSPHRASE_BYTES_MOST + 2));
    let limit = limits::PASSPHRASE_BYTES_MOST as u64 + 2;
    BufReader::with_capacity(1, source.take(limit)).read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(Passphrase(line))
}

fn prompt(twice: bool) -> Result<Passphrase> {
    let failed = |error| {
        Error::because(
            Code::InvalidPassphrase,
            "there is no terminal to ask on: use --passphrase-file",
            error,
        )
    };
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(failed)?;
    let first = ask(&terminal, "Passphrase for the root key: ").map_err(failed)?;
    if twice && *first.0 != *ask(&terminal, "The same again: ").map_err(failed)?.0 {
        return Err(Error::new(
            Code::InvalidPassphrase,
            "the two passphrases differ: try again",
        ));
    }
    Ok(first)
}

fn ask(mut terminal: &File, question: &str) -> io::Result<Passphrase> {
    let before = tcgetattr(terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    terminal.write_all(question.as_bytes())?;
    tcsetattr(terminal, OptionalActions::Flush, &silent)?;
    let line = read_line(terminal);
    tcsetattr(terminal, OptionalActions::Now, &before)?;
    terminal.write_all(b"\n")?;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `cryptography` 48: Argon2id(salt=b"saltsaltsaltsalt", length=32, iterations=3, lanes=4,
    /// memory_cost=65536).derive(b"correct horse battery").
    #[test]
    fn known_answer() {
        let passphrase = read_line(b"correct horse battery\r\nand more".as_slice()).unwrap();
        assert_eq!(
            hex::encode(passphrase.derive(b"saltsaltsaltsalt", COST).unwrap().expose()),
            "b1902c34ae601a143d5c297ce98678f29dbdb234b790e2e20f3879df2759acd1"
        );
    }

    #[test]
    fn absurd_costs_and_short_passphrases_are_refused() {
        let passphrase = read_line(b"x".as_slice()).unwrap();
        for cost in [
            Cost {
                memory_kib: u32::MAX,
                ..COST
            },
            Cost { passes: 17, ..COST },
            Cost { lanes: 0, ..COST },
            Cost {
                memory_kib: 1,
                ..COST
            },
        ] {
            assert_eq!(
                passphrase.derive(&[0; 16], cost).err().unwrap().code(),
                Code::BackupInvalid,
                "{cost:?}"
            );
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "short\n").unwrap();
        let refused = Passphrase::obtain(Some(file.path()), true).err().unwrap();
        assert_eq!(refused.code(), Code::InvalidPassphrase);
        assert!(Passphrase::obtain(Some(file.path()), false).is_ok());
    }
}
