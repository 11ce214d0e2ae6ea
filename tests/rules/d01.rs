//! D01: a disk is created empty, encrypted or not.

use sealblk_e2e::kms::text;

use crate::scene::{PROFILES, briefly, each};

#[test]
fn rule_d01_a_disk_is_created_empty_encrypted_or_not() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        kms.ok(&["instance", "register", "vm"]);
        for (name, option, encrypted) in [
            ("default", None, true),
            ("encrypted", Some("--encrypted=true"), true),
            ("plain", Some("--encrypted=false"), false),
        ] {
            let options: Vec<&str> = option.into_iter().collect();
            let disk = kms.create(name, &options);
            assert_eq!(
                (&disk["encrypted"], disk["key"].is_string()),
                (&encrypted.into(), encrypted)
            );
            assert_eq!(text(&disk, "state"), "available");
            assert_eq!(briefly(kms, name, |guest| guest.read(0, 65536)), [0; 65536]);
        }
        let plain_with_key = [
            "disk",
            "create",
            "x",
            "--size",
            "1MiB",
            "--encrypted=false",
            "--key",
            "k",
        ];
        kms.refused(&plain_with_key, "InvalidRequest", None);
        for size in ["0", "1000", "65TiB"] {
            kms.refused(&["disk", "create", "x", "--size", size], "InvalidSize", None);
        }
    });
}
