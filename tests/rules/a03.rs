//! A03: encrypted disks and local storage do not meet, where the profile says so.

use crate::scene::{Side, assert_side, each};

#[test]
fn rule_a03_local_storage_is_refused_where_the_profile_says_so() {
    const REFUSED: Side = Err(("LocalStorage", "A03"));
    let table = [
        ("tencent-cbs", REFUSED),
        ("alibaba-ecs-classic", Ok(())),
        ("alibaba-ecs", Ok(())),
        ("huawei-evs", Ok(())),
        ("sealblk", REFUSED),
    ];
    each(table, |kms, side| {
        kms.ok(&["instance", "register", "local", "--local-storage"]);
        kms.ok(&["instance", "register", "vm"]);
        kms.create("plain", &["--encrypted=false"]);
        kms.create("data", &[]);
        kms.create("more", &[]);
        kms.ok(&["attach", "plain", "local"]);
        assert_side(kms, &["attach", "data", "local"], side);
        kms.ok(&["attach", "more", "vm"]);
        // Nor is it declared afterwards.
        assert_side(kms, &["instance", "set", "vm", "--local-storage"], side);
    });
}
