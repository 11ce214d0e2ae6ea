//! The disk that an instance boots from: who decides whether it is encrypted (rule I01), and how large it is (rule I04).

use crate::catalogue::images::ImageRow;
use crate::error::{Code, Error, Result};
use crate::profile::{Profile, SystemDisks};
use sealblk_api::SystemDisk;

/// How a system disk comes from its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    /// As any disk from the image: with its encryption, key and lineage.
    Inherit,
    /// Encrypted anew, with a lineage of its own.
    Encrypt,
}

/// Rule I04, where the data is copied.
///
/// # Errors
/// [`Code::SizeBelowSource`].
pub(crate) fn check_larger(wanted: &SystemDisk, image: &ImageRow) -> Result<()> {
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

/// Rule I01: who decides whether a system disk is encrypted. `key` is the id of the key that is asked for.
///
/// # Errors
/// [`Code::SystemDiskPlain`], [`Code::SystemDiskByImage`], [`Code::EncryptionInherited`], [`Code::InvalidRequest`].
pub(crate) fn judge(
    profile: &Profile,
    image: &ImageRow,
    encrypted: Option<bool>,
    key: Option<&str>,
) -> Result<Making> {
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
    use crate::catalogue::images::tests::image;

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
