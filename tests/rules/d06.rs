//! D06: a disk grows, at once or after re-attach, and never shrinks.

use crate::scene::{BLOCK, Side, assert_side, attach, briefly, each};

#[test]
fn rule_d06_a_disk_grows_when_the_profile_says_and_never_shrinks() {
    const AFTER_REATTACH: Side = Err(("ResizeNeedsDetach", "D06"));
    let table = [
        ("tencent-cbs", AFTER_REATTACH),
        ("alibaba-ecs-classic", AFTER_REATTACH),
        ("alibaba-ecs", AFTER_REATTACH),
        ("huawei-evs", AFTER_REATTACH),
        ("sealblk", Ok(())),
    ];
    each(table, |kms, while_attached| {
        kms.ok(&["instance", "register", "vm"]);
        kms.create("data", &[]);
        let resize = |size| ["disk", "resize", "data", "--size", size];
        let mut guest = attach(kms, "data");
        const BEYOND: u64 = 2048;
        assert_ne!(guest.write_status(BEYOND), 0);
        assert_side(kms, &resize("2MiB"), while_attached);
        assert_eq!(guest.write_status(BEYOND) == 0, while_attached.is_ok());
        drop(guest);
        kms.ok(&["detach", "data", "--force"]);
        kms.ok(&resize("3MiB"));
        kms.refused(&resize("1MiB"), "CannotShrink", Some("D06"));
        briefly(kms, "data", |guest| {
            assert_eq!(guest.read(2 * BEYOND, BLOCK), [0; BLOCK]);
        });
    });
}
