//! The audit log.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
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

/// What a record says besides, by name, as `docs/audit.md` lists it: ids of what the call was about, and what was asked for. Names
/// are in alphabetical order.
pub type Details = Map<String, Value>;

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
    /// Ids of what it was about, and what was asked for; absent in records of versions that had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Details>,
    /// SHA-256 over the previous record's hash and this record, hexadecimal.
    pub hash: String,
}

impl AuditRecord {
    /// What its hash must be after a record with this one, or 32 zero bytes before the first record: SHA-256(hash of the
    /// record before ‖ encoding of this one). The encoding is, for each of seq, time, account, uid, pid, request, call, object,
    /// decision, rule and code in this order: its text's length (4 bytes, big-endian) ‖ its text in UTF-8; an absent
    /// rule or code is the empty text. Of a record with details these follow, in the same way: their JSON without spaces, with
    /// names in order, and texts as RFC 8785 has them.
    pub fn chained(&self, previous: &[u8]) -> [u8; 32] {
        let (seq, uid, pid) = (self.seq.to_string(), self.uid.to_string(), self.pid.to_string());
        let details = self.details.as_ref().map(text_of);
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
        for text in texts.into_iter().chain(details.as_deref()) {
            hash.update((text.len() as u32).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }
}

/// Details as the chain has them.
#[must_use]
pub fn text_of(details: &Details) -> String {
    // Maps are sorted, and neither texts nor whole numbers can fail.
    serde_json::to_string(details).unwrap_or_default()
}

/// Where records go besides (`serve --audit-sink`).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditSink {
    /// As on the command line, without `,required`.
    pub id: String,
    /// Same as the id.
    pub name: String,
    /// A call is answered when it has the call's record, and fails otherwise.
    pub required: bool,
    /// Position of the last record that it has.
    pub seq: u64,
    /// Records that it has not yet.
    pub backlog: u64,
    /// Records that were archived before it had them.
    pub missed: u64,
    /// Why it takes none now; null if it does.
    pub error: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(details: Option<Details>) -> AuditRecord {
        AuditRecord {
            id: "audit-7".into(),
            name: "audit-7".into(),
            seq: 7,
            time: "2026-11-22T01:02:03.004Z".into(),
            account: "default".into(),
            uid: 0,
            pid: 42,
            request: "req-1".into(),
            call: "attach".into(),
            object: "data".into(),
            decision: "allowed".into(),
            rule: None,
            code: None,
            details,
            hash: String::new(),
        }
    }

    /// Computed by `python3 -c` with hashlib and struct, from the description of [`AuditRecord::chained`].
    #[test]
    fn the_chain_is_what_its_description_says_with_details_and_without() {
        let before = record(None).chained(&[0; 32]);
        assert_eq!(
            before
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
            "744b93d65a4cf9e79f7ba43abf6c4cd534794b1c9d8dff5a831a629a68be47e0"
        );
        let mut details = Details::new();
        // Neither the order of their making nor that of the caller's words counts.
        details.insert("key".into(), "key-1".into());
        details.insert(
            "asked".into(),
            serde_json::json!({"name": "ä\n\u{1}\"", "force": true, "a": 1}),
        );
        let with = record(Some(details)).chained(&[0; 32]);
        assert_eq!(
            with.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "1917a3a83152a6da1fa20af1ba73838ec811c741f6177a481d6cefaab735c735"
        );
    }
}
