//! I07: an encrypted image is not exported.

use sealblk_e2e::Kms;

use crate::scene::{PROFILES, Side, assert_side, each};

#[test]
fn rule_i07_the_data_of_an_encrypted_image_is_not_written_to_a_file() {
    const NOT_EXPORTED: Side = Err(("EncryptedImageNotExported", "I07"));
    each(PROFILES.map(|profile| (profile, NOT_EXPORTED)), |kms, side| {
        let file = kms.path_text("image.raw");
        kms.create("data", &[]);
        kms.ok(&["image", "create", "secret", "--disk", "data"]);
        assert_side(kms, &["image", "export", "secret", &file], side);
        assert_side(kms, &["image", "export", "secret", &file, "--decrypt"], side);
        assert!(!kms.path("image.raw").exists());
        // It is read by the account's own disks.
        kms.ok(&["disk", "create", "clone", "--image", "secret"]);
    });
}

#[test]
fn rule_i07_the_data_of_a_plain_image_is_written_to_a_file() {
    let kms = Kms::start();
    let file = kms.path("image.raw");
    kms.create("data", &["--encrypted=false"]);
    kms.ok(&["image", "create", "open", "--disk", "data"]);
    kms.ok(&["image", "export", "open", &kms.path_text("image.raw")]);
    assert_eq!(
        file.metadata().unwrap().len(),
        kms.disk("data")["size"].as_u64().unwrap()
    );
}
