//! `GET /v1/audit/verify` (rule M04).

use super::Kms;
use crate::api::types::AuditHead;
use crate::audit::{self, Head};
use crate::error::{Code, Error, Result};

/// Recomputes the whole log, of all accounts, and compares it with a head that was `noted` earlier, as `SEQ:HASH`.
///
/// # Errors
/// [`Code::AuditBroken`]; [`Code::InvalidRequest`] for what is no head.
pub(crate) async fn verify(kms: &Kms, noted: Option<&str>) -> Result<AuditHead> {
    let noted = noted.map(parse).transpose()?;
    // It reads a long log for long: others need the connections, too.
    let _alone = kms.verifying.lock().await;
    let mut db = kms.catalogue.read().await?;
    let head = audit::verify(&mut db, noted.as_ref()).await?;
    let id = format!("audit-{}", head.seq);
    Ok(AuditHead {
        name: id.clone(),
        id,
        seq: head.seq,
        hash: hex::encode(head.hash),
    })
}

fn parse(text: &str) -> Result<Head> {
    let parts = text.split_once(':').and_then(|(seq, hash)| {
        let hash = hex::decode(hash).ok().filter(|hash| hash.len() == 32)?;
        Some(Head {
            seq: seq.parse().ok()?,
            hash,
        })
    });
    parts.ok_or_else(|| {
        let text = "head is SEQ:HASH, as `sealctl audit verify` prints it: the position of a record, and 64 hexadecimal digits";
        Error::new(Code::InvalidRequest, text)
    })
}
