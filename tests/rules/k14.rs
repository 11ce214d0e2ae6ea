//! K14: with the last object of a lineage every wrapped copy of its key is destroyed.

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::eventually;
use sealblk_e2e::kms::Kms;
use sealblk_e2e::search::{Needle, found_below};
use sqlx::Row;

use crate::scene::each;

/// What is left in the state directory of one thing without which the lineage's key cannot be had.
fn is_left(kms: &Kms, needle: &Needle) -> bool {
    !found_below(&kms.state(), std::slice::from_ref(needle))
        .0
        .is_empty()
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
