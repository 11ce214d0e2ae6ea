//! K14: with the last object of a lineage every wrapped copy of its key is destroyed.

use std::fs;

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::eventually;
use sealblk_e2e::kms::Kms;
use sealblk_e2e::search::Needle;
use sqlx::Row;

use crate::scene::each;

/// Whether the catalogue's files hold something without which the lineage's key cannot be had.
fn is_left(kms: &Kms, needle: &Needle) -> bool {
    let files = fs::read_dir(kms.state()).unwrap().flatten();
    let mut contents = files.filter_map(|entry| fs::read(entry.path()).ok());
    contents.any(|bytes| needle.is_in(&bytes))
}

#[test]
fn rule_k14_the_last_object_of_a_lineage_takes_its_wrapped_key() {
    // A data key of the whole region stays, and the lineage's own salt goes.
    let table = [
        ("tencent-cbs", "wrapped_salt"),
        ("alibaba-ecs-classic", "wrapped_key"),
        ("alibaba-ecs", "wrapped_key"),
        ("huawei-evs", "wrapped_key"),
        ("sealblk", "wrapped_key"),
    ];
    each(table, |kms, column| {
        kms.create("data", &[]);
        let row = Catalogue::open(&kms.state()).row(&format!("SELECT {column} AS blob FROM lineages"));
        let needle = Needle::text("wrapped", row.get("blob"));
        kms.ok(&["snapshot", "create", "data", "one"]);
        kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
        kms.create("other", &[]);
        for delete in [["disk", "delete", "data"], ["snapshot", "delete", "one"]] {
            kms.ok(&delete);
            assert!(is_left(kms, &needle), "the clone is under it");
        }
        kms.ok(&["disk", "delete", "clone"]);
        eventually("no copy is left", || (!is_left(kms, &needle)).then_some(()));
        kms.ok(&["instance", "register", "vm"]);
        kms.ok(&["attach", "other", "vm"]);
        kms.refused(&["attach", "data", "vm"], "NotFound", None);
    });
}
