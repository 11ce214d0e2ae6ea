//! What must have come before an account's keys are used for disks (rules K01 and K02).

use crate::audit::Caller;
use crate::catalogue::{Write, meta};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::profile::Gate;

/// Whether the caller's account may create encrypted disks.
///
/// # Errors
/// [`Code::KmsNotActivated`] or [`Code::KmsNotGranted`], as the profile says.
pub(crate) async fn check(kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
    match kms.profile.gate {
        Gate::Activation if meta::is_activated(tx, &caller.account).await? => Ok(()),
        Gate::Activation => Err(Error::new(
            Code::KmsNotActivated,
            "the KMS is not activated in this region: run `sealctl kms activate` first",
        )),
        Gate::Grant => check_grant(kms, caller, tx).await,
    }
}

/// Rule K02: whether the disk service may use the keys of the caller's account, where the profile asks for that.
///
/// # Errors
/// [`Code::KmsNotGranted`].
pub(crate) async fn check_grant(kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
    if kms.profile.gate != Gate::Grant || meta::is_granted(tx, &caller.account).await? {
        return Ok(());
    }
    let text = format!(
        "the disk service has no access to the KMS: ask a Security Administrator of account {} to run \
         `sealctl kms grant`",
        caller.account
    );
    Err(Error::new(Code::KmsNotGranted, text))
}
