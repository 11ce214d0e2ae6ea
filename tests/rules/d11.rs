//! D11: disks are created together with an instance, all of them or none, each metered.

use sealblk_e2e::kms::text;

use crate::scene::with_disk;

#[test]
fn rule_d11_an_instance_comes_with_all_its_disks_or_not_at_all() {
    let kms = with_disk();
    let before = kms.metered("create");
    let register = |last: &'static str| {
        let first = ["instance", "register", "shop", "--disk", "name=one,size=1MiB"];
        [&first[..], &["--disk", last]].concat()
    };
    kms.refused(&register("name=data,size=1MiB"), "NameTaken", None);
    kms.refused(
        &register("name=two,size=1MiB,kind=local"),
        "LocalDisk",
        Some("D02"),
    );
    assert_eq!(kms.metered("create"), before);
    let registered = kms.ok(&register("name=two,size=1MiB"));
    let disks = registered["new_disks"].as_array().unwrap();
    let names: Vec<_> = disks.iter().map(|disk| text(disk, "name")).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(kms.metered("create"), before + 2);
    kms.ok(&["attach", "one", "shop"]);
}
