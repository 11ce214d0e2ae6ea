//! `POST /v1/kms/grant` and `POST /v1/kms/revoke` (rule K02).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::{Write, meta};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::profile::Gate;
use crate::views::kms::kms_status;
use sealblk_api::KmsStatus;

/// Grants the disk service the use of the account's keys. Again is the same as once.
pub(crate) struct Grant;

/// Takes the grant back: nothing encrypted is created or attached any more; what is attached goes on.
pub(crate) struct Revoke;

impl Operation for Grant {
    const CALL: &'static str = "kms.grant";
    type Decided = ();
    type Answer = KmsStatus;

    fn object(&self) -> &str {
        "kms"
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
        set(kms, caller, tx, true).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, (): ()) -> Result<KmsStatus> {
        kms_status(kms, caller).await
    }
}

impl Operation for Revoke {
    const CALL: &'static str = "kms.revoke";
    type Decided = ();
    type Answer = KmsStatus;

    fn object(&self) -> &str {
        "kms"
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
        set(kms, caller, tx, false).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, (): ()) -> Result<KmsStatus> {
        kms_status(kms, caller).await
    }
}

async fn set(kms: &Kms, caller: &Caller, tx: &mut Write, granted: bool) -> Result<()> {
    if kms.profile.gate != Gate::Grant {
        let text = format!(
            "profile {} needs no grant: run `sealctl kms activate` instead",
            kms.profile.name
        );
        return Err(Error::new(Code::NotSupported, text));
    }
    Ok(meta::set_granted(tx, &caller.account, granted).await?)
}
