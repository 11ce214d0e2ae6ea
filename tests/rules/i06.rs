//! I06: an encrypted image is not copied to another region.

use crate::scene::{PROFILES, Side, assert_side, each};

#[test]
fn rule_i06_an_encrypted_image_stays_in_its_region() {
    const STAYS: Side = Err(("EncryptedImageStays", "I06"));
    each(PROFILES.map(|profile| (profile, STAYS)), |kms, side| {
        for (image, encrypted) in [("secret", "--encrypted=true"), ("open", "--encrypted=false")] {
            kms.create(image, &[encrypted]);
            kms.ok(&["image", "create", image, "--disk", image]);
        }
        let copy = |image| ["image", "copy", image, "--to-region", "elsewhere"];
        assert_side(kms, &copy("secret"), side);
        // A plain one may, if a service were known there.
        kms.refused(&copy("open"), "UnknownRegion", None);
        kms.ok(&["image", "copy", "secret", "again", "--encrypt"]);
    });
}
