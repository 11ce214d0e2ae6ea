//! Where the root key of a catalogue comes from.

use crate::state::StateDir;

/// Which provider; the catalogue has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "lowercase")]
pub(crate) enum RootKeyKind {
    /// A key file in the state directory, of mode 0600.
    File,
    /// A file in the state directory that a passphrase opens (Argon2id).
    Passphrase,
    /// A systemd credential, `sealblk-root-key`.
    Credential,
}

impl RootKeyKind {
    /// As the catalogue and the API have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RootKeyKind::File => "file",
            RootKeyKind::Passphrase => "passphrase",
            RootKeyKind::Credential => "credential",
        }
    }

    /// Where it is, in words.
    pub(crate) fn place(self, state: &StateDir) -> String {
        match self {
            RootKeyKind::File => state.root_key().display().to_string(),
            RootKeyKind::Passphrase => {
                format!("{} and its passphrase", state.sealed_root_key().display())
            }
            RootKeyKind::Credential => "the credential sealblk-root-key".to_owned(),
        }
    }

    /// Rule K13: the one algorithm that is not FIPS 140-approved is named wherever the root key depends on it.
    pub(crate) fn note(self) -> Option<&'static str> {
        match self {
            RootKeyKind::Passphrase => Some("derived by Argon2id, which is not FIPS 140-approved (K13)"),
            RootKeyKind::File | RootKeyKind::Credential => None,
        }
    }
}
