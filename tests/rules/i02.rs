//! I02: an encrypted image never becomes plain.

use crate::scene::with_disk;

#[test]
fn rule_i02_an_image_stays_encrypted_and_so_do_the_disks_from_it() {
    let kms = with_disk();
    let image = kms.ok(&["image", "create", "base", "--disk", "data"]);
    assert_eq!(image["encrypted"], true);
    for set in ["--encrypted=false", "--key=other"] {
        kms.refused(
            &["image", "set", "base", set],
            "ImageEncryptionFixed",
            Some("I02"),
        );
    }
    let disk = ["disk", "create", "clone", "--image", "base"];
    let plain = [&disk[..], &["--encrypted=false"]].concat();
    kms.refused(&plain, "EncryptionInherited", Some("D10"));
    assert_eq!(kms.ok(&disk)["lineage"], image["lineage"]);
    kms.sealctl(&["image", "copy", "base", "plain"]).usage_error();
    let copy = kms.ok(&["image", "copy", "base", "sealed", "--encrypt"]);
    assert_eq!(copy["encrypted"], true);
    kms.ok(&["image", "set", "base", "--name", "renamed", "--encrypted=true"]);
}
