//! Keys.

use serde::{Deserialize, Serialize};

/// A customer master key.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Newest version.
    pub version: u32,
    /// What it encrypts with: `AES-256-GCM`.
    pub algorithm: String,
    /// Disks whose data key it wraps.
    pub disks: u64,
    /// RFC 3339.
    pub created: String,
}

/// Keys, a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyList {
    /// The keys.
    pub keys: Vec<Key>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
