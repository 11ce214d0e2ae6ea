//! The root key as a systemd credential (systemd.exec(5), *Credentials*): 64 hexadecimal digits in a file of
//! `$CREDENTIALS_DIRECTORY`, which only the service can read.

use std::path::PathBuf;

use sealblk_proto::keys::RootKey;

use super::file::{RootKeyError, read_digits};
use super::provider::RootKeyProvider;
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::error::{Code, Error, Result};

const NAME: &str = "sealblk-root-key";
const NEXT: &str = "sealblk-root-key-next";

/// The credentials' directory.
pub(crate) struct Credential(PathBuf);

impl Credential {
    /// The directory that systemd names.
    ///
    /// # Errors
    /// [`Code::RootKeyMissing`] if there is none.
    pub(crate) fn from_environment() -> Result<Self> {
        std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| Credential(directory.into()))
            .ok_or_else(|| {
                let text = format!(
                    "the root key is the systemd credential {NAME}, and this process was given none: start it as a \
                     service with LoadCredential={NAME}:FILE or LoadCredentialEncrypted="
                );
                Error::new(Code::RootKeyMissing, text)
            })
    }

    fn read(&self, name: &str) -> std::result::Result<RootKey, RootKeyError> {
        let path = self.0.join(name);
        match std::fs::File::open(&path) {
            Ok(file) => read_digits(file, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(RootKeyError::Missing(path)),
            Err(source) => Err(RootKeyError::Io { path, source }),
        }
    }
}

impl RootKeyProvider for Credential {
    fn kind(&self) -> RootKeyKind {
        RootKeyKind::Credential
    }

    fn path(&self) -> PathBuf {
        self.0.join(NAME)
    }

    fn load(&self) -> Result<RootKey> {
        Ok(self.read(NAME)?)
    }

    fn staged(&self) -> Result<Option<RootKey>> {
        match self.read(NEXT) {
            Err(RootKeyError::Missing(_)) => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    fn stage(&self) -> Result<RootKey> {
        self.staged()?.ok_or_else(|| {
            let text = format!(
                "the root key is a systemd credential, which is not made here: give the service the next one as {NEXT}, \
                 rotate, and then make it {NAME}"
            );
            Error::new(Code::NotSupported, text)
        })
    }

    /// Nothing: whoever keeps the credentials puts the next key in its place. Until then each start finds that it is the one that
    /// fits.
    fn promote(&self) -> Result<()> {
        Ok(())
    }
}
