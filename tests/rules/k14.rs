//! K14: with the last object of a lineage every wrapped copy of its key is destroyed, and a disk is one as long as it is in the bin.

use std::fs;

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::eventually;
use sealblk_e2e::kms::{Kms, text};
use sealblk_e2e::search::Needle;
use sqlx::Row;

use crate::scene::{PROFILES, each, open_gate};

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
        for delete in [
            &["disk", "delete", "data", "--now"][..],
            &["snapshot", "delete", "one"],
        ] {
            kms.ok(delete);
            assert!(is_left(kms, &needle), "the clone is under it");
        }
        kms.ok(&["disk", "delete", "clone", "--now"]);
        eventually("no copy is left", || (!is_left(kms, &needle)).then_some(()));
        kms.ok(&["instance", "register", "vm"]);
        kms.ok(&["attach", "other", "vm"]);
        kms.refused(&["attach", "data", "vm"], "NotFound", None);
    });
}

#[test]
fn rule_k14_a_deleted_disk_can_be_restored_as_long_as_the_profile_keeps_it() {
    let table = [
        ("tencent-cbs", 0),
        ("alibaba-ecs-classic", 0),
        ("alibaba-ecs", 0),
        ("huawei-evs", 0),
        ("sealblk", 7),
    ];
    each(table, |kms, days| {
        assert_eq!(kms.ok(&["kms", "profile"])["retention"], days);
        let lineages = |kms: &Kms| {
            let row = Catalogue::open(&kms.state()).row("SELECT count(*) AS number FROM lineages");
            row.get::<i64, _>("number")
        };
        let created = kms.create("data", &[]);
        let deleted = kms.ok(&["disk", "delete", "data"]);
        assert_eq!(deleted["id"], created["id"]);
        if days == 0 {
            assert!(deleted["removal"].is_null());
            kms.refused(&["disk", "show", "data"], "NotFound", None);
            kms.refused(&["disk", "restore", "data"], "NotFound", None);
            eventually("its keys are gone", || (lineages(kms) == 0).then_some(()));
            return;
        }
        assert!(text(&deleted, "removal") > text(&deleted, "deleted"));
        for call in [
            &["disk", "show", "data"][..],
            &["disk", "delete", "data"],
            &["disk", "delete", "data", "--now"],
            &["disk", "delete", "data", "--retention", "30"],
            &["snapshot", "create", "data", "one"],
        ] {
            kms.refused(call, "DiskDeleted", None);
        }
        assert_eq!(lineages(kms), 1);
        let restored = kms.ok(&["disk", "restore", "data"]);
        for field in ["id", "serial", "lineage", "key", "size", "created"] {
            assert_eq!(restored[field], created[field], "{field}");
        }
        assert_eq!(restored["state"], "available");
        kms.ok(&["disk", "delete", "data"]);
        kms.ok(&["disk", "delete", text(&created, "id"), "--now"]);
        kms.refused(&["disk", "restore", "data"], "NotFound", None);
        eventually("its keys are gone", || (lineages(kms) == 0).then_some(()));
    });
}

#[test]
fn rule_k14_whoever_deletes_a_disk_says_for_how_long_it_is_kept() {
    let table = PROFILES.map(|profile| (profile, ()));
    each(table, |kms, ()| {
        let id = text(&kms.create("data", &[]), "id").to_owned();
        kms.ok(&["disk", "delete", "data", "--retention", "365"]);
        assert_eq!(kms.ok(&["kms", "status"])["bin"]["disks"], 1);
        kms.ok(&["disk", "restore", &id]);
        kms.ok(&["disk", "delete", "data", "--now"]);
        assert_eq!(kms.ok(&["kms", "status"])["bin"]["disks"], 0);
        kms.refused(&["disk", "restore", &id], "NotFound", None);
    });
}

#[test]
fn rule_k14_what_readers_keep_in_the_log_is_said_and_goes_when_they_have_gone() {
    let kms = Kms::of_profile("alibaba-ecs", 100_000_000);
    open_gate(&kms);
    kms.ok(&["key", "create", "mine"]);
    kms.create("data", &[]);
    let row = Catalogue::open(&kms.state()).row("SELECT wrapped_key AS blob FROM lineages");
    let needle = Needle::text("wrapped", row.get("blob"));
    let mut reader = Catalogue::open(&kms.state());
    reader.execute("BEGIN");
    reader.row("SELECT count(*) FROM disks");
    kms.ok(&["disk", "delete", "data"]);
    let status = || kms.ok(&["kms", "status"])["conditions"].to_string();
    assert!(is_left(&kms, &needle) && status().contains("DeletedKeysLeft"));
    drop(reader);
    // Each minute, or when keys need work in the background.
    kms.ok(&["key", "rotate", "mine"]);
    eventually("it is tried again", || {
        (!is_left(&kms, &needle) && !status().contains("DeletedKeysLeft")).then_some(())
    });
}
