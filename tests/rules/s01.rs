//! S01: a snapshot is encrypted as its disk is.

use sealblk_e2e::Kms;

#[test]
fn rule_s01_a_snapshot_is_as_its_disk_is_and_stays_so() {
    let kms = Kms::start();
    for (name, encrypted, other) in [("secret", "true", "false"), ("plain", "false", "true")] {
        let disk = kms.create(name, &[&format!("--encrypted={encrypted}")]);
        let snapshot = kms.ok(&["snapshot", "create", name, &format!("of-{name}")]);
        assert_eq!(
            (&snapshot["encrypted"], &snapshot["lineage"]),
            (&disk["encrypted"], &disk["lineage"])
        );
        let set = |value: &str| {
            [
                "snapshot".into(),
                "set".into(),
                format!("of-{name}"),
                format!("--encrypted={value}"),
            ]
        };
        let convert: [String; 4] = set(other);
        kms.refused(
            &convert.each_ref().map(String::as_str),
            "SnapshotEncryptionFixed",
            Some("S01"),
        );
        let keep: [String; 4] = set(encrypted);
        kms.ok(&keep.each_ref().map(String::as_str));
    }
    let asking = ["snapshot", "create", "plain", "more", "--encrypted=true"];
    kms.sealctl(&asking).usage_error();
}
