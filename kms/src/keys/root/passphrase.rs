//! The root key in a file that a passphrase opens: JSON with cost and salt of Argon2id (RFC 9106), and the root key wrapped
//! by the envelope's format under the passphrase's key, bound to the catalogue. Mode 0600.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sealblk_proto::keys::RootKey;
use serde::{Deserialize, Serialize};

use super::file::check_access;
use super::provider::{RootKeyProvider, generate, promote};
use crate::catalogue::meta::Meta;
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::error::{Code, Error, Result};
use crate::keys::envelope::{self, EnvelopeError, Place, WrappedKey};
use crate::keys::passphrase::{COST, Cost, Passphrase};
use crate::limits;
use crate::state::write_durably;

const SALT_BYTES: usize = 16;

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    /// Hexadecimal.
    salt: String,
    /// Hexadecimal.
    wrapped: String,
}

/// A sealed file of the state directory, and the key that opens it.
pub(crate) struct SealedFile {
    path: PathBuf,
    region: String,
    catalogue: String,
    cost: Cost,
    salt: Vec<u8>,
    key: RootKey,
}

impl SealedFile {
    /// Makes a root key, and the file, where there is none.
    ///
    /// # Errors
    /// [`Code::StateUnusable`].
    pub(crate) fn create(path: PathBuf, meta: &Meta, passphrase: &Passphrase) -> Result<Self> {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| {
            Error::because(Code::Internal, "the operating system gives no randomness", error)
        })?;
        let sealed = Self::with_key(path, meta, passphrase, COST, salt)?;
        sealed.write(&sealed.path, &generate()?)?;
        Ok(sealed)
    }

    /// Takes what there is; the passphrase is found to be wrong when the key is loaded.
    ///
    /// # Errors
    /// [`Code::RootKeyMissing`], [`Code::RootKeyPermissions`], [`Code::RootKeyInvalid`].
    pub(crate) fn open(path: PathBuf, meta: &Meta, passphrase: &Passphrase) -> Result<Self> {
        let sealed = read(&path)?;
        let cost = Cost {
            memory_kib: sealed.memory_kib,
            passes: sealed.passes,
            lanes: sealed.lanes,
        };
        let salt = hex::decode(&sealed.salt).map_err(|error| invalid(&path, error))?;
        Self::with_key(path, meta, passphrase, cost, salt)
    }

    fn with_key(
        path: PathBuf,
        meta: &Meta,
        passphrase: &Passphrase,
        cost: Cost,
        salt: Vec<u8>,
    ) -> Result<Self> {
        Ok(SealedFile {
            path,
            region: meta.region.clone(),
            catalogue: meta.catalogue.clone(),
            cost,
            key: passphrase.derive(&salt, cost)?,
            salt,
        })
    }

    fn place(&self) -> Place<'_> {
        Place {
            region: &self.region,
            account: "",
            key: &self.catalogue,
            key_version: 0,
            lineage: "",
        }
    }

    fn staged_path(&self) -> PathBuf {
        self.path.with_extension("sealed.next")
    }

    fn unseal(&self, path: &Path) -> Result<RootKey> {
        let sealed = read(path)?;
        let bytes = hex::decode(&sealed.wrapped).map_err(|error| invalid(path, error))?;
        let wrapped = WrappedKey::from_bytes(&bytes).map_err(|error| invalid(path, error))?;
        match envelope::unwrap_root_key(&self.key, &wrapped, &self.place()) {
            Err(EnvelopeError::Invalid) => Err(Error::new(
                Code::WrongPassphrase,
                format!(
                    "the passphrase is not the one of {}, or the file is damaged or another catalogue's",
                    path.display()
                ),
            )),
            opened => Ok(opened?),
        }
    }

    /// Durably: the file is there with its whole contents or not at all.
    fn write(&self, path: &Path, root: &RootKey) -> Result<()> {
        let wrapped = envelope::wrap_root_key(&self.key, root, &self.place())?;
        let sealed = Sealed {
            memory_kib: self.cost.memory_kib,
            passes: self.cost.passes,
            lanes: self.cost.lanes,
            salt: hex::encode(&self.salt),
            wrapped: hex::encode(wrapped.as_bytes()),
        };
        let text = serde_json::to_string(&sealed).map_err(|error| invalid(path, error))?;
        write_durably(path, text.as_bytes()).map_err(|error| {
            let text = format!("{} cannot be written", path.display());
            Error::because(Code::StateUnusable, text, error)
        })
    }
}

impl RootKeyProvider for SealedFile {
    fn kind(&self) -> RootKeyKind {
        RootKeyKind::Passphrase
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn load(&self) -> Result<RootKey> {
        self.unseal(&self.path)
    }

    fn staged(&self) -> Result<Option<RootKey>> {
        let path = self.staged_path();
        path.exists().then(|| self.unseal(&path)).transpose()
    }

    fn stage(&self) -> Result<RootKey> {
        if let Some(key) = self.staged()? {
            return Ok(key);
        }
        let key = generate()?;
        self.write(&self.staged_path(), &key)?;
        Ok(key)
    }

    fn promote(&self) -> Result<()> {
        promote(&self.staged_path(), &self.path)
    }
}

fn read(path: &Path) -> Result<Sealed> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::RootKeyMissing,
            _ => Code::StateUnusable,
        };
        let text = format!("{}, the sealed root key, cannot be read", path.display());
        Error::because(code, text, error)
    };
    let file = File::open(path).map_err(failed)?;
    check_access(path, &file.metadata().map_err(failed)?)?;
    let mut text = String::new();
    file.take(limits::SEALED_ROOT_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| invalid(path, error))
}

fn invalid(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = format!("{} is no sealed root key", path.display());
    Error::because(Code::RootKeyInvalid, text, error)
}
