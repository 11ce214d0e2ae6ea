//! The disk that an instance boots from: it comes with the instance from an image, and goes with it (rules I01, D10).

use crate::audit::Caller;
use crate::catalogue::images::ImageRow;
use crate::catalogue::instances::InstanceRow;
use crate::catalogue::intents::IntentRow;
use crate::catalogue::{Write, disks, keys, snapshots};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::clone;
use crate::rules::attachable;
use crate::rules::profile::{Profile, SystemDisks};
use crate::rules::source::usable_image;
use sealblk_api::{CreateDisk, SystemDisk};

/// How a system disk comes from its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Making {
    /// As any disk from the image: with its encryption, key and lineage.
    Inherit,
    /// Encrypted anew, with a lineage of its own.
    Encrypt,
}

/// The disk that is to be created.
pub(crate) struct Chosen {
    pub(crate) disk: CreateDisk,
    /// A clone of the image whose data is copied to the disk, where that is encrypted anew.
    pub(crate) source: Option<IntentRow>,
}

/// Decides how the system disk is made.
///
/// # Errors
/// The refusals of rules I01, D10 and I04; [`Code::NotFound`].
pub(crate) async fn choose(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    instance: &InstanceRow,
    wanted: &SystemDisk,
) -> Result<Chosen> {
    let image = find::image(tx, caller, &wanted.image).await?;
    let key = match &wanted.key {
        // What is no key is nobody's, and is refused as such later.
        Some(key) => {
            let found = keys::find(tx, &caller.account, key).await?;
            Some(found.map_or_else(|| key.clone(), |row| row.id))
        }
        None => None,
    };
    let making = judge(kms.profile, &image, wanted.encrypted, key.as_deref())?;
    let name = wanted.name.clone();
    let disk = CreateDisk {
        name: name.unwrap_or_else(|| format!("{}-system", instance.name)),
        size: wanted.size,
        snapshot: None,
        image: Some(image.id.clone()),
        encrypted: None,
        store: None,
        path: None,
        zone: None,
        key: None,
        kind: None,
        disk_type: wanted.disk_type.clone(),
        role: None,
        shared: false,
        on_full: None,
    };
    if making == Making::Inherit {
        return Ok(Chosen { disk, source: None });
    }
    let origin = usable_image(&image)?;
    check_larger(wanted, &image)?;
    let snapshot = snapshots::get(tx, &image.snapshot).await?;
    let source = clone::open_source(kms, caller, tx, &snapshot, &origin).await?;
    let disk = CreateDisk {
        size: wanted.size.or(Some(image.size.unsigned_abs())),
        image: None,
        encrypted: Some(true),
        zone: Some(image.zone),
        key,
        kind: Some(image.kind),
        disk_type: disk.disk_type.or(Some(image.disk_type)),
        ..disk
    };
    Ok(Chosen {
        disk,
        source: Some(source),
    })
}

/// Rule I04, where the data is copied.
fn check_larger(wanted: &SystemDisk, image: &ImageRow) -> Result<()> {
    let least = image.size.unsigned_abs();
    if wanted.size.is_some_and(|size| size < least) {
        let text = format!(
            "image {} has {least} bytes: ask for no size, or for a larger one",
            image.name
        );
        return Err(Error::new(Code::SizeBelowSource, text));
    }
    Ok(())
}

/// Makes a new disk the instance's, if it could be attached to it.
///
/// # Errors
/// Those of an attach (rules A01, A03, A04).
pub(crate) async fn bind(kms: &Kms, tx: &mut Write, instance: &InstanceRow, disk: &str) -> Result<()> {
    disks::bind(tx, disk, &instance.id).await?;
    attachable::check(kms.profile, &disks::get(tx, disk).await?, instance)
}

/// Rule I01: who decides whether a system disk is encrypted. `key` is the id of the key that is asked for.
fn judge(profile: &Profile, image: &ImageRow, encrypted: Option<bool>, key: Option<&str>) -> Result<Making> {
    let refuse = |code, text: String| Err(Error::new(code, text));
    let name = &image.name;
    match (profile.system_disks, encrypted, key) {
        (SystemDisks::No, _, _) if image.encrypted => {
            let text =
                format!("image {name} is encrypted, and system disks are not here: choose a plain image");
            refuse(Code::SystemDiskPlain, text)
        }
        (SystemDisks::No, Some(true), _) | (SystemDisks::No, _, Some(_)) => {
            let text = "system disks are not encrypted here: leave encryption and key out, and keep what must be \
                        encrypted on other disks";
            refuse(Code::SystemDiskPlain, text.to_owned())
        }
        (SystemDisks::No, _, None) | (SystemDisks::ByImage, None, None) => Ok(Making::Inherit),
        (SystemDisks::ByImage, _, _) => {
            let text = "its image alone decides whether a system disk is encrypted, and with which key: leave both out, \
                        and choose an image that is what you need";
            refuse(Code::SystemDiskByImage, text.to_owned())
        }
        (SystemDisks::Yes, Some(false), Some(_)) => {
            let text = "a plain disk has no key: leave the key out, or ask for an encrypted disk";
            refuse(Code::InvalidRequest, text.to_owned())
        }
        (SystemDisks::Yes, Some(false), None) if image.encrypted => {
            let text = format!(
                "image {name} is encrypted, and so is a system disk that is made from it: leave the choice out, or choose \
                 a plain image"
            );
            refuse(Code::EncryptionInherited, text)
        }
        (SystemDisks::Yes, _, Some(key)) if image.key.as_deref() == Some(key) => Ok(Making::Inherit),
        (SystemDisks::Yes, _, Some(_)) => Ok(Making::Encrypt),
        (SystemDisks::Yes, Some(true), None) if !image.encrypted => Ok(Making::Encrypt),
        (SystemDisks::Yes, _, None) => Ok(Making::Inherit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::image::tests::image;

    /// Choice of encryption and of key, whether the image is encrypted (with key B), and what comes of it where system disks
    /// are encrypted not at all, by their image, and by choice.
    type Row = (Option<bool>, Option<&'static str>, bool, [Outcome; 3]);
    /// A decision, by the code and rule of a refusal.
    type Outcome = std::result::Result<Making, (Code, Option<&'static str>)>;

    const PLAIN: Outcome = Err((Code::SystemDiskPlain, Some("I01")));
    const BY_IMAGE: Outcome = Err((Code::SystemDiskByImage, Some("I01")));
    const INHERITED: Outcome = Err((Code::EncryptionInherited, Some("D10")));
    const INVALID: Outcome = Err((Code::InvalidRequest, None));
    const INHERIT: Outcome = Ok(Making::Inherit);
    const ENCRYPT: Outcome = Ok(Making::Encrypt);

    const TABLE: [Row; 14] = [
        (None, None, false, [INHERIT, INHERIT, INHERIT]),
        (None, None, true, [PLAIN, INHERIT, INHERIT]),
        (None, Some("key-a"), false, [PLAIN, BY_IMAGE, ENCRYPT]),
        (None, Some("key-a"), true, [PLAIN, BY_IMAGE, ENCRYPT]),
        (None, Some("key-b"), true, [PLAIN, BY_IMAGE, INHERIT]),
        (Some(true), None, false, [PLAIN, BY_IMAGE, ENCRYPT]),
        (Some(true), None, true, [PLAIN, BY_IMAGE, INHERIT]),
        (Some(true), Some("key-a"), false, [PLAIN, BY_IMAGE, ENCRYPT]),
        (Some(true), Some("key-a"), true, [PLAIN, BY_IMAGE, ENCRYPT]),
        (Some(true), Some("key-b"), true, [PLAIN, BY_IMAGE, INHERIT]),
        (Some(false), None, false, [INHERIT, BY_IMAGE, INHERIT]),
        (Some(false), None, true, [PLAIN, BY_IMAGE, INHERITED]),
        (Some(false), Some("key-a"), false, [PLAIN, BY_IMAGE, INVALID]),
        (Some(false), Some("key-b"), true, [PLAIN, BY_IMAGE, INVALID]),
    ];

    #[test]
    fn rule_i01_every_row_under_every_profile() {
        for (profile, column) in [
            ("tencent-cbs", 0),
            ("alibaba-ecs-classic", 0),
            ("alibaba-ecs", 1),
            ("huawei-evs", 2),
            ("sealblk", 2),
        ] {
            for (encrypted, key, image_encrypted, expected) in TABLE {
                let image = ImageRow {
                    key: image_encrypted.then(|| "key-b".to_owned()),
                    ..image(image_encrypted)
                };
                let judged = judge(Profile::named(profile).unwrap(), &image, encrypted, key);
                let judged = judged.map_err(|error| (error.code(), error.code().rule()));
                let row = (profile, encrypted, key, image_encrypted);
                assert_eq!(judged, expected[column], "{row:?}");
            }
        }
    }
}
