//! Passphrases: from a file or the terminal, and the key that comes of one (Argon2id, RFC 9106).

use std::fs::File;
use std::io;
use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sealblk_proto::keys::{KEY_BYTES, RootKey};
use sealblk_proto::locked::{WorkingMemory, wipe_dead_stack_of};

use crate::error::{Code, Error, Result};
use crate::keys::prompt::ask;
use crate::keys::secret_line::SecretLine;
use crate::limits;

/// A passphrase, in locked memory; wiped when dropped.
pub(crate) struct Passphrase(SecretLine);

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
/// What Argon2 has its locals in, among them blocks of 1 KiB.
const STACK_BYTES: usize = 128 * 1024;
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
    /// [`Code::InvalidPassphrase`], [`Code::FileFailed`]; [`Code::Internal`] without locked memory.
    pub(crate) fn obtain(file: Option<&Path>, new: bool) -> Result<Self> {
        let mut line = empty()?;
        match file {
            Some(path) => {
                let read = File::open(path).and_then(|file| line.take_first_of(file));
                read.map_err(|error| {
                    Error::because(Code::FileFailed, "the passphrase's file cannot be read", error)
                })?;
            }
            None => prompt(&mut line, new)?,
        }
        let length = line.as_bytes().len();
        if new && length < limits::PASSPHRASE_BYTES_LEAST || length > limits::PASSPHRASE_BYTES_MOST {
            let (least, most) = (limits::PASSPHRASE_BYTES_LEAST, limits::PASSPHRASE_BYTES_MOST);
            return Err(Error::new(
                Code::InvalidPassphrase,
                format!("a passphrase has {least} to {most} bytes"),
            ));
        }
        Ok(Passphrase(line))
    }

    /// The key that wraps a root key. Whoever had the last blocks of its computation would have the key, so they lie in
    /// locked memory; where there may not be so much of that, this is logged.
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
        let failed = |error| Error::because(Code::Internal, "the passphrase's key cannot be derived", error);
        let mut blocks = WorkingMemory::filled(Block::new(), params.block_count()).map_err(failed)?;
        if let Some(error) = blocks.unlocked() {
            log::warn!(
                "the {} KiB in which the passphrase's key is derived cannot be locked, and may be swapped out before they are \
                 wiped: raise the limit of locked memory (ulimit -l, LimitMEMLOCK=), or have no swap: {error}",
                cost.memory_kib
            );
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let key = RootKey::try_new_with(|key| {
            argon2
                .hash_password_into_with_memory(self.0.as_bytes(), salt, key, blocks.values())
                .map_err(|error| io::Error::other(error.to_string()))
        });
        wipe_dead_stack_of::<STACK_BYTES>();
        key.map_err(failed)
    }
}

/// Before anything is opened or asked: what fails here says nothing of a file or a terminal.
fn empty() -> Result<SecretLine> {
    let text = "memory for the passphrase cannot be locked: raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)";
    SecretLine::empty().map_err(|error| Error::because(Code::Internal, text, error))
}

fn prompt(first: &mut SecretLine, twice: bool) -> Result<()> {
    let failed = |error: io::Error| {
        let text = match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof => "no passphrase was given",
            _ => "there is no terminal to ask on: use --passphrase-file",
        };
        Error::because(Code::InvalidPassphrase, text, error)
    };
    let mut second = empty()?;
    ask("Passphrase for the root key: ", first).map_err(failed)?;
    if twice {
        ask("The same again: ", &mut second).map_err(failed)?;
        if first.as_bytes() != second.as_bytes() {
            return Err(Error::new(
                Code::InvalidPassphrase,
                "the two passphrases differ: try again",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        let mut line = empty().unwrap();
        line.take_first_of(text.as_bytes()).unwrap();
        Passphrase(line)
    }

    /// Computed with Python's `cryptography` 48: Argon2id(salt=b"saltsaltsaltsalt", length=32, iterations=3, lanes=4,
    /// memory_cost=65536).derive(b"correct horse battery").
    #[test]
    fn known_answer() {
        let passphrase = passphrase("correct horse battery\r\nand more");
        assert_eq!(
            hex::encode(passphrase.derive(b"saltsaltsaltsalt", COST).unwrap().expose()),
            "b1902c34ae601a143d5c297ce98678f29dbdb234b790e2e20f3879df2759acd1"
        );
    }

    #[test]
    fn absurd_costs_and_short_passphrases_are_refused() {
        let passphrase = passphrase("x");
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
