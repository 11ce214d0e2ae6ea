//! Asking for the audit log to be verified.

use sealblk_api::AuditHead;
use sealblk_api::client::{Client, route, with};

use crate::failure::Failure;

/// Asks the daemon to recompute the log.
pub(super) async fn verify(client: &mut Client, head: Option<&str>) -> Result<AuditHead, Failure> {
    let path = route(&["audit", "verify"]);
    let path = head.map_or(path.clone(), |head| with(&path, "head", head));
    Ok(client.get_patiently(&path).await?)
}
