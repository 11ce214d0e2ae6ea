//! D06: a disk grows, at once or after re-attach, and never shrinks.

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms};
use sealblk_e2e::{eventually, process};

use crate::scene::{BLOCK, attach, briefly, each, open_gate};

/// The first sector that a disk of 1 MiB has not.
const BEYOND: u64 = 2048;
const PROFILES: [(&str, bool); 5] = [
    ("tencent-cbs", false),
    ("alibaba-ecs-classic", false),
    ("alibaba-ecs", false),
    ("huawei-evs", false),
    ("sealblk", true),
];

fn resize(size: &str) -> [&str; 5] {
    ["disk", "resize", "data", "--size", size]
}

/// Whether a guest can write to what came when the disk grew.
fn sees_more(guest: &mut Guest) -> bool {
    guest.write_status(BEYOND) == 0
}

#[test]
fn rule_d06_a_disk_grows_and_its_guest_sees_that_when_the_profile_says() {
    each(PROFILES, |kms, live| {
        kms.ok(&["instance", "register", "vm"]);
        kms.create("data", &[]);
        let mut guest = attach(kms, "data");
        assert!(!sees_more(&mut guest));
        kms.ok(&resize("2MiB"));
        assert_eq!(kms.disk("data")["size"], 2 << 20);
        assert_eq!(sees_more(&mut guest), live);
        let warnings = kms.disk("data")["warnings"].to_string();
        assert_eq!(warnings.contains("D06"), !live, "{warnings}");
        drop(guest);
        kms.ok(&["detach", "data", "--force"]);
        briefly(kms, "data", |guest| assert!(sees_more(guest)));
        kms.ok(&resize("3MiB"));
        kms.refused(&resize("1MiB"), "CannotShrink", Some("D06"));
        briefly(kms, "data", |guest| {
            assert_eq!(guest.read(2 * BEYOND, BLOCK), [0; BLOCK]);
        });
    });
}

fn connect(kms: &Kms) -> Guest {
    let disk = kms.disk("data");
    let socket = kms::path(&disk, "socket");
    eventually("a process that serves", || kms.backend("data"));
    Guest::connect(socket)
}

#[test]
fn rule_d06_until_re_attach_the_old_size_outlasts_every_process() {
    let mut kms = Kms::of_profile("huawei-evs", 0);
    open_gate(&kms);
    let attachment = kms.attached();
    kms.ok(&resize("2MiB"));
    kms.ok(&["snapshot", "create", "data", "one"]);
    assert_eq!(kms.ok(&["snapshot", "show", "data/one"])["size"], 2 << 20);
    let mut guest = connect(&kms);
    assert!(!sees_more(&mut guest));
    // Handed over with its guest.
    kms.ok(&["backend", "restart", "data"]);
    assert!(!sees_more(&mut guest));
    drop(guest);
    let killed = kms.backend("data").unwrap();
    process::kill(killed);
    eventually("a new process", || {
        kms.backend("data").filter(|pid| *pid != killed)
    });
    assert!(!sees_more(&mut connect(&kms)));
    // It grows once more, and what its guest sees is still what that saw when it was attached.
    kms.ok(&resize("3MiB"));
    let killed = kms.backend("data").unwrap();
    kms.kill();
    process::kill(killed);
    kms.serve();
    eventually("a new process", || {
        kms.backend("data").filter(|pid| *pid != killed)
    });
    let mut guest = connect(&kms);
    assert!(!sees_more(&mut guest));
    assert_eq!(guest.read(BEYOND - 8, BLOCK), [0; BLOCK]);
    drop(guest);
    let shown = kms.disk("data");
    assert_eq!(
        (&shown["size"], &shown["guest_size"]),
        (&(3 << 20).into(), &(1 << 20).into())
    );
    kms.ok(&["detach", "data", "--force"]);
    assert_ne!(kms.ok(&["attach", "data", "vm"])["id"], attachment["id"]);
    let mut guest = connect(&kms);
    assert!(sees_more(&mut guest));
    assert_eq!(guest.read(2 * BEYOND, BLOCK), [0; BLOCK]);
    assert_eq!(kms.disk("data")["guest_size"], serde_json::Value::Null);
}
