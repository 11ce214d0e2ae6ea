//! A04: encrypted disks and bare-metal instances do not meet, where the profile says so.

use crate::scene::{Side, assert_side, each};

#[test]
fn rule_a04_bare_metal_is_refused_where_the_profile_says_so() {
    const REFUSED: Side = Err(("BareMetal", "A04"));
    let table = [
        ("tencent-cbs", Ok(())),
        ("alibaba-ecs-classic", Ok(())),
        ("alibaba-ecs", REFUSED),
        ("huawei-evs", Ok(())),
        ("sealblk", Ok(())),
    ];
    each(table, |kms, side| {
        kms.ok(&["instance", "register", "metal", "--bare-metal"]);
        kms.ok(&["instance", "register", "vm"]);
        kms.create("plain", &["--encrypted=false"]);
        kms.create("data", &[]);
        kms.create("more", &[]);
        kms.ok(&["attach", "plain", "metal"]);
        assert_side(kms, &["attach", "data", "metal"], side);
        kms.ok(&["attach", "more", "vm"]);
        assert_side(kms, &["instance", "set", "vm", "--bare-metal"], side);
    });
}
