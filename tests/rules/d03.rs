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
        // Not even behind the daemon's back.
        kms.stop();
        let change = "UPDATE volumes SET encrypted = 1 - encrypted";
        let refusal = Catalogue::open(&kms.state()).try_execute(change).unwrap_err();
        assert!(refusal.contains("D03"), "{refusal}");
    });
}
