//! I07: an encrypted image is not exported.

use crate::scene::{PROFILES, Side, assert_side, each};

#[test]
fn rule_i07_the_data_of_an_encrypted_image_is_not_written_to_a_file() {
    const NOT_EXPORTED: Side = Err(("EncryptedImageNotExported", "I07"));
    each(PROFILES.map(|profile| (profile, NOT_EXPORTED)), |kms, side| {
        let file = kms.path_text("image.raw");
        kms.create("data", &[]);
        kms.ok(&["image", "create", "secret", "--disk", "data"]);
        assert_side(kms, &["image", "export", "secret", &file], side);
        assert!(!kms.path("image.raw").exists());
        // It is read by the account's own disks.
        kms.ok(&["disk", "create", "clone", "--image", "secret"]);
    });
}
