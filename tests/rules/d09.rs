//! D09: a shared disk is attached to several instances, each by a socket of its own, and served by one process; any other
//! disk to one instance.

use std::process::Stdio;

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::{Outcome, eventually, process};
use serde_json::Value;

use crate::scene::{Side, assert_side, each, mark, marked, with_customer_key};

const INSTANCES: [&str; 2] = ["vm", "vm2"];

fn register(kms: &Kms) {
    for instance in INSTANCES {
        kms.ok(&["instance", "register", instance]);
    }
}

/// Attaches the disk to both, and connects a guest to each.
fn attach_both(kms: &Kms, disk: &str) -> [(Value, Guest); 2] {
    INSTANCES.map(|instance| {
        let attachment = kms.ok(&["attach", disk, instance]);
        let guest = Guest::connect(kms::path(&attachment, "socket"));
        (attachment, guest)
    })
}

#[test]
fn rule_d09_a_shared_disk_goes_to_several_instances_and_others_to_one() {
    const REFUSED: Side = Err(("TypeNotEncryptable", "D02"));
    // Types that some profiles do not encrypt when they are shared: basic and essd.
    let table = [
        ("tencent-cbs", [Ok(()), Ok(())]),
        ("alibaba-ecs-classic", [REFUSED, REFUSED]),
        ("alibaba-ecs", [Ok(()), REFUSED]),
        ("huawei-evs", [Ok(()), Ok(())]),
        ("sealblk", [Ok(()), Ok(())]),
    ];
    each(table, |kms, sides| {
        register(kms);
        for (wanted, side) in ["basic", "essd"].into_iter().zip(sides) {
            let create = [
                "disk", "create", wanted, "--size", "1MiB", "--shared", "--type", wanted,
            ];
            assert_side(kms, &create, side);
        }
        kms.create("plain", &["--encrypted=false", "--type", "essd", "--shared"]);
        kms.create("single", &[]);
        kms.ok(&["attach", "single", "vm"]);
        kms.refused(&["attach", "single", "vm2"], "AlreadyAttached", Some("D09"));

        kms.create("data", &["--shared"]);
        let [(first, mut one), (second, mut other)] = attach_both(kms, "data");
        assert_ne!(first["socket"], second["socket"]);
        assert_eq!(kms::pid(&first), kms::pid(&second), "one process");
        assert_eq!(kms.metered("attach"), 3, "each is metered");
        mark(&mut one, 1);
        assert_eq!(marked(&mut other), 1);
        mark(&mut other, 2);
        assert_eq!(marked(&mut one), 2);
        kms.refused(&["attach", "data", "vm2"], "AlreadyAttached", Some("D09"));
        kms.refused(&["detach", "data"], "InstanceNeeded", Some("D09"));

        // One goes while the other uses it.
        kms.refused(&["detach", "data", "vm"], "FrontendConnected", None);
        let left = kms.ok(&["detach", "data", "vm", "--force"]);
        assert_eq!(
            (text(&left, "state"), &left["attachments"][0]["id"]),
            ("in-use", &second["id"])
        );
        mark(&mut other, 3);
        drop(one);
        let again = kms.ok(&["attach", "data", "vm", "--read-only"]);
        let mut one = Guest::connect(kms::path(&again, "socket"));
        assert_eq!(marked(&mut one), 3);
        assert_ne!(one.write_status(0), 0, "it may only read");
        mark(&mut other, 4);
        assert_eq!(marked(&mut one), 4);

        let pid = kms::pid(&first);
        kms.ok(&["detach", "data", "vm2", "--force"]);
        let gone = kms.ok(&["detach", "data", "--force"]);
        assert_eq!(text(&gone, "state"), "available");
        eventually("the process's end", || (!process::is_running(pid)).then_some(()));
        assert_eq!((kms.metered("attach"), kms.metered("detach")), (4, 3));
    });
}

#[test]
fn rule_d09_of_two_attaches_at_once_one_wins() {
    let kms = Kms::start();
    register(&kms);
    kms.create("data", &[]);
    let attaches = INSTANCES.map(|instance| {
        let mut program = kms.sealctl_program(&["attach", "data", instance]);
        program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let outcomes = attaches.map(|child| Outcome::from(child.wait_with_output().unwrap()));
    let (won, lost): (Vec<_>, Vec<_>) = outcomes
        .into_iter()
        .partition(|outcome| outcome.status == Some(0));
    assert_eq!((won.len(), lost.len()), (1, 1), "{won:?} {lost:?}");
    for outcome in lost {
        outcome.refusal("AlreadyAttached", Some("D09"));
    }
    assert_eq!(kms.metered("attach"), 1);
    assert_eq!(kms.disk("data")["attachments"].as_array().unwrap().len(), 1);
}

#[test]
fn rule_d09_each_attachment_of_a_shared_disk_obeys_the_rules() {
    let kms = with_customer_key();
    kms.create("shared", &["--shared", "--key", "mine"]);
    let first = kms.ok(&["attach", "shared", "vm"]);
    let mut guest = Guest::connect(kms::path(&first, "socket"));
    kms.ok(&["instance", "register", "far", "--zone", "other-zone"]);
    kms.ok(&["instance", "register", "local", "--local-storage"]);
    kms.ok(&["instance", "register", "vm2"]);
    kms.ok(&["instance", "register", "vm3"]);
    kms.refused(&["attach", "shared", "far"], "ZoneMismatch", Some("A01"));
    kms.refused(&["attach", "shared", "local"], "LocalStorage", Some("A03"));
    let socket = kms.path_text("own.sock");
    let second = kms.ok(&["attach", "shared", "vm2", "--vhost-socket", &socket]);
    assert_eq!(text(&second, "socket"), socket);
    kms.ok(&["key", "disable", "mine"]);
    kms.refused(&["attach", "shared", "vm3"], "KeyNotUsable", Some("A05"));
    kms.refused(&["detach", "shared", "vm2"], "DetachNeedsForce", Some("A07"));
    mark(&mut guest, 7);
    assert_eq!(marked(&mut Guest::connect(socket.as_ref())), 7);
    kms.ok(&["detach", "shared", "vm2", "--force"]);
    assert_eq!(marked(&mut guest), 7, "nobody else was ended");
    // What is done to the disk meets whoever is connected.
    kms.ok(&["key", "enable", "mine"]);
    kms.ok(&["snapshot", "create", "shared", "one"]);
    kms.ok(&["attach", "shared", "vm3"]);
    drop(guest);
    let third = kms.disk("shared");
    let socket = kms::path(&third["attachments"][1], "socket").to_owned();
    let mut guest = Guest::connect(&socket);
    mark(&mut guest, 8);
    kms.refused(&["rollback", "shared", "one"], "DiskInUse", Some("S05"));
    kms.ok(&["rollback", "shared", "one", "--force"]);
    assert_eq!(marked(&mut guest), 7);
}

#[test]
fn rule_d09_whether_a_disk_is_shared_is_chosen_once() {
    let kms = Kms::start();
    register(&kms);
    kms.create("shared", &["--shared"]);
    kms.create("single", &[]);
    kms.refused(
        &["disk", "set", "shared", "--shared=false"],
        "SharedFixed",
        Some("D09"),
    );
    kms.refused(&["disk", "set", "single", "--shared"], "SharedFixed", Some("D09"));
    kms.ok(&["disk", "set", "shared", "--shared=true"]);
    // What is made from it chooses for itself.
    for (disk, clones) in [("shared", [false, true]), ("single", [true, false])] {
        let snapshot = format!("of-{disk}");
        kms.ok(&["snapshot", "create", disk, &snapshot]);
        for shared in clones {
            let name = format!("{disk}-{shared}");
            let words = ["disk", "create", &name, "--snapshot", &snapshot, "--shared"];
            let clone = kms.ok(&words[..5 + usize::from(shared)]);
            assert_eq!(clone["shared"], shared);
            kms.ok(&["attach", &name, "vm"]);
            if shared {
                kms.ok(&["attach", &name, "vm2"]);
            } else {
                kms.refused(&["attach", &name, "vm2"], "AlreadyAttached", Some("D09"));
            }
        }
    }
}
