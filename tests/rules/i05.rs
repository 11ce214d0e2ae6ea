//! I05: an image with an encrypted snapshot is not shared with another account.

use serde_json::json;

use crate::scene::{PROFILES, Side, assert_side, each, serve_users};

const OTHER: u32 = 1_900_000_003;

#[test]
fn rule_i05_a_plain_image_is_shared_and_an_encrypted_one_is_not() {
    const NOT_SHARED: Side = Err(("EncryptedImageNotShared", "I05"));
    each(PROFILES.map(|profile| (profile, NOT_SHARED)), |kms, side| {
        serve_users(kms, &[(OTHER, "acme", "operator")]);
        for (image, encrypted, side) in [("secret", "true", side), ("open", "false", Ok(()))] {
            kms.create(image, &[&format!("--encrypted={encrypted}")]);
            kms.ok(&["image", "create", image, "--disk", image]);
            assert_side(kms, &["image", "share", image, "--account", "acme"], side);
        }
        assert_eq!(kms.ok(&["image", "show", "open"])["shared_with"], json!(["acme"]));
        assert_eq!(kms.ok(&["image", "show", "secret"])["shared_with"], json!([]));
    });
}

#[test]
fn rule_i05_an_image_that_is_made_of_a_file_is_shared_if_it_is_plain() {
    const NOT_SHARED: Side = Err(("EncryptedImageNotShared", "I05"));
    each(PROFILES.map(|profile| (profile, NOT_SHARED)), |kms, side| {
        serve_users(kms, &[(OTHER, "acme", "operator")]);
        let file = kms.path_text("image.raw");
        std::fs::write(&file, [7; 65536]).unwrap();
        kms.ok(&["image", "import", "secret", &file, "--encrypted"]);
        kms.ok(&["image", "import", "open", &file]);
        assert_side(kms, &["image", "share", "secret", "--account", "acme"], side);
        assert_side(kms, &["image", "share", "open", "--account", "acme"], Ok(()));
    });
}
