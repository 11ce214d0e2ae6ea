//! `POST /v1/kms/activate` (rule K01).

use super::kms_status::kms_status;
use super::{Kms, Operation};
use crate::api::types::KmsStatus;
use crate::audit::Caller;
use crate::catalogue::{Write, meta};
use crate::error::Result;

/// Activates the KMS for the caller's account. Again is the same as once.
pub(crate) struct Activate;

impl Operation for Activate {
    const CALL: &'static str = "kms.activate";
    type Decided = ();
    type Answer = KmsStatus;

    fn object(&self) -> &str {
        "kms"
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
        Ok(meta::activate(tx, &caller.account).await?)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, (): ()) -> Result<KmsStatus> {
        kms_status(kms, caller).await
    }
}
