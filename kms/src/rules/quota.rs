//! How much an account may have.

use crate::catalogue::Write;
use crate::catalogue::counts::{self, Counted};
use crate::context::Kms;
use crate::error::{Code, Error, Result};

/// Whether the account may have one more.
///
/// # Errors
/// [`Code::TooMany`].
pub(crate) async fn check(kms: &Kms, tx: &mut Write, account: &str, counted: Counted) -> Result<()> {
    let quota = kms.quotas.of(account);
    let (most, what, how) = match counted {
        Counted::Disks => (quota.disks, "disks", "delete one that is not needed"),
        Counted::Instances => (quota.instances, "instances", "remove one that is not needed"),
        Counted::Images => (quota.images, "images", "delete one that is not needed"),
        Counted::Backups => (quota.backups, "backups", "delete one that is not needed"),
        Counted::Copies => (
            quota.copies,
            "copies that go on",
            "try again when one of them has ended",
        ),
        Counted::Schedules => (
            quota.schedules,
            "schedules of snapshots",
            "remove one that is not needed",
        ),
    };
    if counts::of_account(tx, account, counted, most).await? < most {
        return Ok(());
    }
    let text = format!(
        "account {account} has {most} {what}, and may not have more: {how}, or have `limits` raised in the accounts file"
    );
    Err(Error::new(Code::TooMany, text))
}
