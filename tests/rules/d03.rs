//! D03: a disk is encrypted for ever, or never.

use sealblk_e2e::catalogue::Catalogue;

use crate::scene::{PROFILES, each};

#[test]
fn rule_d03_a_disk_stays_encrypted_or_plain() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        kms.create("encrypted", &[]);
        kms.create("plain", &["--encrypted=false"]);
        for (disk, other, same) in [("encrypted", "false", "true"), ("plain", "true", "false")] {
            let set = |value: &str| format!("--encrypted={value}");
            kms.refused(
                &["disk", "set", disk, &set(other)],
                "EncryptionFixed",
                Some("D03"),
            );
            kms.ok(&[
                "disk",
                "set",
                disk,
                &set(same),
                "--name",
                &format!("{disk}-renamed"),
            ]);
        }
        for verb in ["update", "encrypt", "decrypt", "convert"] {
            kms.sealctl(&["disk", verb, "plain-renamed", "--encrypted=true"])
                .usage_error();
        }
        // Not even behind the daemon's back.
        kms.stop();
        for change in ["encrypted = 1 - encrypted", "encrypted = 0, lineage = NULL"] {
            let change = format!("UPDATE volumes SET {change}");
            let refusal = Catalogue::open(&kms.state()).try_execute(&change).unwrap_err();
            assert!(refusal.contains("D03"), "{refusal}");
        }
    });
}
