//! S02: a disk from an encrypted snapshot is encrypted, with the same lineage.

use crate::scene::{briefly, mark, marked, with_disk};

#[test]
fn rule_s02_a_disk_from_an_encrypted_snapshot_is_encrypted_without_asking() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| mark(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    let clone = kms.ok(&["disk", "create", "clone", "--snapshot", "data/one"]);
    assert_eq!(
        (&clone["encrypted"], &clone["lineage"]),
        (&true.into(), &kms.disk("data")["lineage"])
    );
    // Each goes its own way.
    briefly(&kms, "clone", |guest| {
        assert_eq!(marked(guest), 1);
        mark(guest, 2);
    });
    assert_eq!(briefly(&kms, "data", marked), 1);
    let plain = [
        "disk",
        "create",
        "plain",
        "--snapshot",
        "data/one",
        "--encrypted=false",
    ];
    kms.refused(&plain, "EncryptionInherited", Some("D10"));
}
