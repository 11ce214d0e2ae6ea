//! S07: a snapshot can be deleted while disks depend on it; its space returns with the last of them.

use sealblk_e2e::kms;
use serde_json::json;

use crate::scene::{briefly, mark, marked, with_disk};

#[test]
fn rule_s07_a_deleted_snapshot_is_out_of_sight_until_its_last_dependant_goes() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| mark(guest, 8));
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
    let disk = kms.disk("data");
    let file = kms::path(&disk, "path");
    kms.ok(&["snapshot", "delete", "one"]);
    assert_eq!(kms.ok(&["snapshot", "list"])["snapshots"], json!([]));
    for call in [
        &["rollback", "data", "one"][..],
        &["disk", "create", "late", "--snapshot", "data/one"],
        &["snapshot", "show", "data/one"],
    ] {
        kms.refused(call, "NotFound", None);
    }
    kms.ok(&["disk", "delete", "data", "--now"]);
    assert!(file.exists());
    assert_eq!(briefly(&kms, "clone", marked), 8);
    kms.ok(&["disk", "delete", "clone", "--now"]);
    assert!(!file.exists());
}
