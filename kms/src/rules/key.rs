//! The key of a disk: which one a new disk can have (rules K03, K08, K15), and whether it can be used now (rule A05).

use crate::audit::Caller;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Write, lineages};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::id;
use crate::keys::fee;

/// Rule A05: the disk's key is usable now, and the wrapped key that is stored really opens.
///
/// # Errors
/// [`Code::KeyNotUsable`], or the keyring's.
pub(crate) async fn check_disk(kms: &Kms, tx: &mut Write, disk: &DiskRow) -> Result<()> {
    check_lineage(kms, tx, disk.lineage.as_deref()).await
}

/// Rule A05 for the key of a lineage, whatever is of that lineage: a disk, a snapshot, an image or a backup. Without a lineage there is
/// no key to check.
///
/// # Errors
/// As [`check_disk`].
pub(crate) async fn check_lineage(kms: &Kms, tx: &mut Write, lineage: Option<&str>) -> Result<()> {
    let Some(lineage) = lineage else {
        return Ok(());
    };
    let row = lineages::get(tx, lineage).await?;
    row.key_now().usable()?;
    let owing = fee::Owing {
        account: &row.account,
        key: &row.key,
        origin: row.origin,
        fee_month: row.fee_month.as_deref(),
    };
    kms.fees().check_paid(tx, &owing).await?;
    kms.keyring.lineage_key(&row).map(|_| ())
}

/// A lineage under the key that is asked for, or the service key; and the service key if this first use has made it.
///
/// # Errors
/// Those of [`find_key`]; [`Code::KeyNotUsable`], [`Code::KeyFeeUnpaid`].
pub(crate) async fn new_lineage(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    wanted: Option<&str>,
) -> Result<(String, Option<String>)> {
    let (account, region) = (&caller.account, &kms.meta.region);
    let before = keys::service_key(tx, account, region).await?;
    let key = match wanted {
        Some(wanted) => find_key(kms, caller, tx, wanted).await?,
        None => kms.keyring.service_key(tx, account).await?,
    };
    caller.facts.note("key", key.id.as_str());
    caller.facts.note_if("key_version", key.version);
    key.now().usable()?;
    let owing = fee::Owing {
        account: &key.account,
        key: &key.id,
        origin: key.origin,
        fee_month: key.fee_month.as_deref(),
    };
    kms.fees().check_paid(tx, &owing).await?;
    let scope = kms.profile.key_scope;
    let lineage = kms.keyring.new_lineage(tx, account, &key, scope).await?;
    let made_key = match before {
        None => keys::service_key(tx, account, region).await?.map(|key| key.id),
        Some(_) => None,
    };
    Ok((lineage, made_key))
}

/// The key that a new disk is to have (rule K08). Naming the service key is the same as naming none, but where the profile has no
/// customer keys: there no key can be named, the service's neither (rule K03). Rule K15.
///
/// # Errors
/// [`Code::KeyNotAllowed`], [`Code::NoSuchKey`], [`Code::WrongRegion`].
async fn find_key(kms: &Kms, caller: &Caller, tx: &mut Write, wanted: &str) -> Result<KeyRow> {
    if !kms.profile.customer_keys {
        let text =
            format!("key {wanted:?} cannot be chosen: leave the key out, and the disk has the service key");
        return Err(Error::new(Code::KeyNotAllowed, text));
    }
    let region = &kms.meta.region;
    let Some(key) = keys::find(tx, &caller.account, wanted).await? else {
        // An id that was not given here was given elsewhere.
        let code = match id::is_key(wanted) {
            true => Code::WrongRegion,
            false => Code::NoSuchKey,
        };
        let text = format!(
            "account {} has no key {wanted:?} in region {region}: name one that `sealctl key list` shows, or leave the key out",
            caller.account
        );
        return Err(Error::new(code, text));
    };
    if key.region != *region {
        let text = format!(
            "key {} is of region {}: a disk uses a key of its own region only",
            key.id, key.region
        );
        return Err(Error::new(Code::WrongRegion, text));
    }
    Ok(key)
}
