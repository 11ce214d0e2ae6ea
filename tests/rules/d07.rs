//! D07: a disk is made empty, and keeps its id and its snapshots.

use sealblk_e2e::{eventually, kms, process};

use crate::scene::{BLOCK, attach, briefly, mark, marked, with_disk};

#[test]
fn rule_d07_a_reinitialised_disk_reads_zeros_and_keeps_id_and_snapshots() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| mark(guest, 4));
    kms.ok(&["snapshot", "create", "data", "one"]);
    let before = kms.disk("data");
    let after = kms.ok(&["disk", "reinit", "data"]);
    assert_eq!((&after["id"], &after["size"]), (&before["id"], &before["size"]));
    assert_eq!(briefly(&kms, "data", marked), 0);
    kms.ok(&["rollback", "data", "one"]);
    let mut guest = attach(&kms, "data");
    assert_eq!(marked(&mut guest), 4);
    kms.refused(&["disk", "reinit", "data"], "DiskInUse", Some("S05"));
    assert_eq!(marked(&mut guest), 4);
}

#[test]
fn rule_d07_a_raw_disk_is_written_with_zeros_enciphered_or_not() {
    let kms = with_disk();
    for (name, encryption) in [("sealed", "--encrypted"), ("plain", "--encrypted=false")] {
        kms.create(name, &["--store", "raw", encryption]);
        let before = kms.disk(name);
        let mut guest = attach(&kms, name);
        mark(&mut guest, 4);
        kms.refused(&["disk", "reinit", name], "DiskInUse", Some("S05"));
        kms.refused(&["disk", "reinit", name, "--force"], "DiskAttached", None);
        drop(guest);
        kms.ok(&["detach", name, "--force"]);
        let after = kms.ok(&["disk", "reinit", name]);
        assert_eq!((&after["id"], &after["size"]), (&before["id"], &before["size"]));
        let file = std::fs::read(kms::path(&before, "path")).unwrap();
        assert_eq!(file.iter().all(|byte| *byte == 0), name == "plain");
        briefly(&kms, name, |guest| {
            for sector in (0..2048).step_by(BLOCK / 512) {
                assert_eq!(guest.read(sector, BLOCK), [0; BLOCK]);
            }
        });
    }
    assert_eq!(kms.metered("reinit"), 1);
    // What reads zeros can be copied to.
    kms.ok(&["disk", "reinit", "plain"]);
    kms.ok(&["disk", "copy", "data", "plain"]);
}

#[test]
fn rule_d07_a_raw_disk_is_made_empty_also_if_all_processes_are_killed_meanwhile() {
    const BYTES: u64 = 256 << 20;
    let mut kms = with_disk();
    kms.ok(&["disk", "create", "raw", "--size", "256MiB", "--store", "raw"]);
    let last = BYTES / 512 - 8;
    briefly(&kms, "raw", |guest| {
        mark(guest, 4);
        guest.write(last, &[5; BLOCK]);
        guest.flush();
    });
    kms.ok(&["disk", "reinit", "raw", "--no-wait"]);
    kms.kill();
    for pid in process::processes_of(&kms.state()) {
        process::kill(pid);
    }
    kms.serve();
    eventually("its end", || {
        (kms.disk("raw")["copy"]["phase"] == "done").then_some(())
    });
    briefly(&kms, "raw", |guest| {
        assert_eq!(marked(guest), 0);
        assert_eq!(guest.read(last, BLOCK), [0; BLOCK]);
    });
}
