//! A record of the audit log, from the catalogue to the API.

use crate::catalogue::audit_records::AuditRow;
use sealblk_api::AuditRecord;

/// As the API gives it.
pub(super) fn record(row: AuditRow) -> AuditRecord {
    let id = format!("audit-{}", row.seq);
    AuditRecord {
        name: id.clone(),
        id,
        seq: row.seq.unsigned_abs(),
        time: row.time,
        account: row.account,
        uid: row.uid,
        pid: row.pid,
        request: row.request,
        call: row.call,
        object: row.object,
        decision: row.decision,
        rule: row.rule,
        code: row.code,
        // Details that are no JSON were not written by us: then the record's hash is not that of the chain, either.
        details: row
            .details
            .map(|text| serde_json::from_str(&text).unwrap_or_default()),
        hash: hex::encode(row.hash),
    }
}
