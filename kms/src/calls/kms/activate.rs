//! `POST /v1/kms/activate` (rule K01).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::{Write, meta};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::profile::Gate;
use crate::views::kms::kms_status;
use sealblk_api::KmsStatus;

/// Activates the KMS for the caller's account. Again is the same as once.
pub(crate) struct Activate;

impl Operation for Activate {
    const CALL: &'static str = "kms.activate";
    type Decided = ();
    type Answer = KmsStatus;

    fn object(&self) -> &str {
        "kms"
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
        if kms.profile.gate != Gate::Activation {
            let text = format!(
                "profile {} asks for a grant: run `sealctl kms grant` instead",
                kms.profile.name
            );
            return Err(Error::new(Code::NotSupported, text));
        }
        Ok(meta::activate(tx, &caller.account).await?)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, (): ()) -> Result<KmsStatus> {
        kms_status(kms, caller).await
    }
}
