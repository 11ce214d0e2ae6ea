//! The audit log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Records of the audit log, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The records.
    pub audit: Vec<AuditRecord>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A decision (rule M04).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// `audit-` and the position.
    #[serde(default)]
    pub id: String,
    /// Same as the id.
    #[serde(default)]
    pub name: String,
    /// Position in the log, from 1.
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    /// Account.
    pub account: String,
    /// User id of the caller.
    pub uid: u32,
    /// Process id of the caller.
    pub pid: i32,
    /// Id of the request.
    pub request: String,
    /// `disk.create`, `attach`, …
    pub call: String,
    /// Id or name of what it was about.
    pub object: String,
    /// `allowed`, `refused` or `failed`.
    pub decision: String,
    /// Rule that refused.
    pub rule: Option<String>,
    /// Code of the refusal or failure.
    pub code: Option<String>,
    /// SHA-256 over the previous record's hash and this record, hexadecimal.
    pub hash: String,
}

/// How far the audit log of all accounts reaches: its newest record, whose hash covers all of them (rule M04).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// `audit-` and the position.
    pub id: String,
    /// Same as the id.
    pub name: String,
    /// Position of the record.
    pub seq: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
}
