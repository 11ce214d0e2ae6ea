//! Keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A customer master key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// `key-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// `service`, `customer` or `imported`.
    pub origin: String,
    /// `Enabled`, `Disabled`, `PendingImport`, `PendingDeletion` or `Destroyed` (rule K11).
    pub state: String,
    /// Region it belongs to (rule K15).
    pub region: String,
    /// Newest version; null before its material has been imported.
    pub version: Option<u32>,
    /// What it encrypts with: `AES-256-GCM`.
    pub algorithm: String,
    /// Disks whose data key it wraps.
    pub disks: u64,
    /// When it is destroyed, RFC 3339, if its deletion is scheduled.
    pub deletion: Option<String>,
    /// Days that the daemon must still see pass before that, rounded up. While it does not run, or does not see how much time passes,
    /// the day moves: later, never sooner.
    #[serde(default)]
    pub deletion_days_left: Option<u64>,
    /// Other names by which it is found.
    pub aliases: Vec<String>,
    /// Whatever its owner notes of it.
    pub tags: BTreeMap<String, String>,
    /// The name that a destroyed key had, where another has that now; the destroyed one is called by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_name: Option<String>,
    /// RFC 3339.
    pub created: String,
}

impl Key {
    /// Whether it is in this state.
    #[must_use]
    pub fn is(&self, state: KeyState) -> bool {
        self.state == state.name()
    }
}

/// The states of a key (rule K11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Can be used.
    Enabled,
    /// Cannot be used until it is enabled.
    Disabled,
    /// Its material has not been imported yet (rule K10).
    PendingImport,
    /// Is destroyed on its deletion day, unless that is cancelled.
    PendingDeletion,
    /// Has no material any more.
    Destroyed,
}

impl KeyState {
    /// As it stands in [`Key::state`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            KeyState::Enabled => "Enabled",
            KeyState::Disabled => "Disabled",
            KeyState::PendingImport => "PendingImport",
            KeyState::PendingDeletion => "PendingDeletion",
            KeyState::Destroyed => "Destroyed",
        }
    }
}

/// Keys, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The keys.
    pub keys: Vec<Key>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Creates a key (rule K08).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Unique in the account.
    pub name: String,
    /// Its material is to be imported (rule K10).
    #[serde(default)]
    pub import: bool,
}

/// Changes aliases and tags of a key. What is not named stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetKey {
    /// Further names; one that another key has is taken from that.
    #[serde(default)]
    pub add_aliases: Vec<String>,
    /// Names to be taken away.
    #[serde(default)]
    pub remove_aliases: Vec<String>,
    /// Tags to be set; with null, to be removed.
    #[serde(default)]
    pub tags: BTreeMap<String, Option<String>>,
}

/// Destroys a key after some days (rule K11).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleDeletion {
    /// 7 to 30, or as many as the daemon permits; without it, as many as it permits.
    #[serde(default)]
    pub days: Option<u16>,
    /// Also if it protects something, which nobody can read afterwards.
    #[serde(default)]
    pub acknowledge: bool,
}

/// What is needed to wrap a key's material for its import (rule K10).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportParams {
    /// Of the key.
    pub id: String,
    /// Of the key.
    pub name: String,
    /// RSA with 3072 bits, a PEM `SubjectPublicKeyInfo`.
    pub public_key: String,
    /// For one attempt, with what was wrapped for this public key.
    pub import_token: String,
    /// Until when, RFC 3339; a restart of the daemon ends it as well.
    pub expires: String,
}

/// Imports a key's material.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// As [`ImportParams`] has it.
    pub import_token: String,
    /// Base64 of: RSA-OAEP (SHA-256, MGF1 with SHA-256) of a 256-bit AES key ‖ AES-KWP of the 32 bytes of material under
    /// it, which is what PKCS #11 calls CKM_RSA_AES_KEY_WRAP.
    pub wrapped_material: String,
}

/// How far the rewrapping of a key is (rule K12).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rewrapping {
    /// Of the key.
    pub id: String,
    /// Of the key.
    pub name: String,
    /// The newest version.
    pub version: u32,
    /// Data keys and salts of lineages that are under it.
    pub done: u64,
    /// All of them.
    pub total: u64,
    /// Versions that have material: the older ones go when nothing is under them.
    pub versions: Vec<u32>,
}

/// Something that a key protects.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyResource {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `disk`, `snapshot`, `image` or `backup`; `copy` for the volume by which a copy that goes on reads a snapshot.
    pub kind: String,
    /// Its state.
    pub state: String,
}

/// What a key protects (rule K11), a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyResources {
    /// In the order of their ids.
    pub resources: Vec<KeyResource>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
