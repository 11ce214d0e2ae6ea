//! The audit log.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// Records of the audit log, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The records.
    pub audit: Vec<AuditRecord>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// In a page for an archive: what was archived before, after which the log begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<AuditHead>,
}

/// Removes the oldest records, which somebody keeps in a file (rule M04).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveAudit {
    /// Position of the first record that stays.
    pub before: u64,
    /// Hash of the record before it, hexadecimal.
    pub hash: String,
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

impl AuditRecord {
    /// What its hash must be after a record with this one, or 32 zero bytes before the first record: SHA-256(hash of the
    /// record before ‖ encoding of this one). The encoding is, for each of seq, time, account, uid, pid, request, call, object,
    /// decision, rule and code in this order: its text's length (4 bytes, big-endian) ‖ its text in UTF-8; an absent
    /// rule or code is the empty text.
    pub fn chained(&self, previous: &[u8]) -> [u8; 32] {
        let (seq, uid, pid) = (self.seq.to_string(), self.uid.to_string(), self.pid.to_string());
        let texts = [
            &seq,
            &self.time,
            &self.account,
            &uid,
            &pid,
            &self.request,
            &self.call,
            &self.object,
            &self.decision,
            self.rule.as_deref().unwrap_or(""),
            self.code.as_deref().unwrap_or(""),
        ];
        let mut hash = Sha256::new();
        hash.update(previous);
        for text in texts {
            hash.update((text.len() as u32).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }
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
