//! D10: encryption is chosen for a new disk, alone or with an instance, and inherited from a snapshot or an image.

use crate::scene::{PROFILES, each};

#[test]
fn rule_d10_a_new_disk_chooses_and_a_disk_from_a_snapshot_or_an_image_inherits() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        for (name, encrypted, other) in [("secret", "true", "false"), ("plain", "false", "true")] {
            let alone = kms.create(name, &[&format!("--encrypted={encrypted}")]);
            let spec = format!("name={name}-with,size=1MiB,encrypted={encrypted}");
            let with = kms.ok(&["instance", "register", name, "--disk", &spec]);
            assert_eq!(alone["encrypted"].to_string(), encrypted);
            assert_eq!(with["new_disks"][0]["encrypted"], alone["encrypted"]);
            kms.ok(&["snapshot", "create", name, &format!("of-{name}")]);
            kms.ok(&["image", "create", name, "--snapshot", &format!("of-{name}")]);
            let (asks, inherits) = (format!("--encrypted={other}"), format!("--encrypted={encrypted}"));
            for (source, of) in [("--snapshot", &*format!("of-{name}")), ("--image", name)] {
                let clone = format!("{name}-from{source}");
                let create = |option| ["disk", "create", &clone, source, of, option];
                kms.refused(&create(&asks), "EncryptionInherited", Some("D10"));
                let inherited = kms.ok(&create(&inherits));
                assert_eq!(inherited["encrypted"], alone["encrypted"]);
            }
        }
    });
}
