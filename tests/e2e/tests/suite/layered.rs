//! Layered disks with real data: snapshots, rollback, disks from snapshots, growth, and the end of each.

use std::fs;
use std::path::{Path, PathBuf};

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::search::{Needle, found_below};
use sealblk_e2e::{eventually, process};
use serde_json::Value;
use sqlx::Row;

const BLOCK: usize = 4096;

/// A disk `data` of 1 MiB, and an instance `vm`.
fn with_disk() -> Kms {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    kms
}

/// Attaches the disk and lets a guest do something with it; it stays attached.
fn with_guest<T>(kms: &Kms, disk: &str, work: impl FnOnce(&mut Guest) -> T) -> T {
    let attachment = kms.ok(&["attach", disk, "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    work(&mut guest)
}

/// As [`with_guest`], and detaches it.
fn briefly<T>(kms: &Kms, disk: &str, work: impl FnOnce(&mut Guest) -> T) -> T {
    let result = with_guest(kms, disk, work);
    kms.ok(&["detach", disk, "--force"]);
    result
}

fn write(guest: &mut Guest, byte: u8) {
    guest.write(8, &[byte; BLOCK]);
    guest.flush();
}

fn byte(guest: &mut Guest) -> u8 {
    let bytes = guest.read(8, BLOCK);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "one write in whole");
    bytes[0]
}

fn files(kms: &Kms) -> Vec<PathBuf> {
    let entries = fs::read_dir(kms.state().join("disks")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn names(list: &Value) -> Vec<&str> {
    let rows = list["snapshots"].as_array().unwrap();
    rows.iter().map(|row| text(row, "name")).collect()
}

#[test]
fn rule_s03_s05_a_disk_is_rolled_back_detached_or_by_force() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    briefly(&kms, "data", |guest| write(guest, 2));
    kms.ok(&["snapshot", "create", "data", "two"]);
    kms.ok(&["rollback", "data", "one"]);
    with_guest(&kms, "data", |guest| {
        assert_eq!(byte(guest), 1);
        write(guest, 3);
        let sentence = kms.refused(&["rollback", "data", "two"], "DiskInUse", Some("S05"));
        assert!(sentence.contains("--force"), "{sentence}");
        assert_eq!(byte(guest), 3);
        kms.ok(&["rollback", "data", "two", "--force"]);
        assert_eq!(byte(guest), 2);
    });
    assert_eq!(
        names(&kms.disk("data")),
        ["one", "two"],
        "the newer one is kept, too"
    );
}

#[test]
fn rule_s04_a_snapshot_of_a_disk_in_use_has_what_was_written_before_it() {
    let kms = with_disk();
    with_guest(&kms, "data", |guest| {
        for number in 1..=5 {
            guest.write(8, &[number; BLOCK]);
            kms.ok(&["snapshot", "create", "data", &format!("s{number}")]);
        }
        write(guest, 99);
    });
    kms.ok(&["detach", "data", "--force"]);
    for number in [3, 1, 5] {
        kms.ok(&["rollback", "data", &format!("s{number}")]);
        assert_eq!(briefly(&kms, "data", byte), number);
    }
}

#[test]
fn rule_s02_a_disk_from_a_snapshot_goes_its_own_way_beside_its_source() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    let clone = kms.ok(&["disk", "create", "clone", "--snapshot", "data/one"]);
    assert_eq!(
        (&clone["lineage"], &clone["size"]),
        (&kms.disk("data")["lineage"], &kms.disk("data")["size"])
    );
    with_guest(&kms, "data", |source| {
        with_guest(&kms, "clone", |copy| {
            assert_eq!((byte(source), byte(copy)), (1, 1));
            write(source, 2);
            assert_eq!(byte(copy), 1);
            write(copy, 3);
            assert_eq!((byte(source), byte(copy)), (2, 3));
        });
    });
    // A disk from the clone's snapshot reads through both.
    kms.ok(&["snapshot", "create", "clone", "two"]);
    kms.ok(&[
        "disk",
        "create",
        "third",
        "--snapshot",
        "clone/two",
        "--size",
        "2MiB",
    ]);
    with_guest(&kms, "third", |guest| {
        assert_eq!(byte(guest), 3);
        guest.write(2048, &[4; BLOCK]);
    });
    assert_eq!(kms.disk("third")["size"], 2 << 20);
}

#[test]
fn rule_s07_snapshots_and_clones_outlive_the_disk_and_the_last_takes_the_file() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["snapshot", "create", "data", "other"]);
    kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
    kms.ok(&["disk", "delete", "data", "--now"]);
    assert_eq!(names(&kms.ok(&["snapshot", "list"])).len(), 2);
    kms.ok(&["disk", "create", "late", "--snapshot", "one"]);
    assert_eq!(briefly(&kms, "late", byte), 1);
    kms.ok(&["snapshot", "delete", "one"]);
    kms.ok(&["snapshot", "delete", "other"]);
    assert_eq!(names(&kms.ok(&["snapshot", "list"])), Vec::<&str>::new());
    assert_eq!(files(&kms).len(), 3);
    assert_eq!(briefly(&kms, "clone", byte), 1);
    kms.ok(&["disk", "delete", "clone", "--now"]);
    assert_eq!(briefly(&kms, "late", byte), 1);
    kms.ok(&["disk", "delete", "late", "--now"]);
    assert_eq!(files(&kms), Vec::<PathBuf>::new());
}

/// The disk, its snapshots, the disks made from them and their snapshots are one lineage. Its wrapped keys are in the
/// catalogue as long as there is any of these, and with the last one they are in no file any more, nor in a log.
#[test]
fn rule_k14_k05_the_last_of_a_lineage_takes_every_wrapped_copy_of_its_key() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    let row = Catalogue::open(&kms.state()).row("SELECT wrapped_key, wrapped_salt FROM lineages");
    let needle = |name: &str| Needle::text(name, row.get(name));
    let wrapped = [needle("wrapped_key"), needle("wrapped_salt")];
    let found = || {
        let (found, files) = found_below(&kms.path("."), &wrapped);
        assert!(files >= 3, "the catalogue is looked at");
        found
    };
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
    kms.ok(&["snapshot", "create", "clone", "two"]);
    // Another lineage, which stays.
    kms.create("other", &[]);
    for last in [
        &["disk", "delete", "data", "--now"][..],
        &["snapshot", "delete", "one"],
        &["disk", "delete", "clone", "--now"],
    ] {
        kms.ok(last);
        let there = found();
        assert!(there.len() >= 2, "after {last:?}: {there:?}");
        kms.ok(&["disk", "create", "probe", "--snapshot", "two"]);
        assert_eq!(briefly(&kms, "probe", byte), 1, "after {last:?}");
        kms.ok(&["disk", "delete", "probe", "--now"]);
    }
    kms.ok(&["snapshot", "delete", "two"]);
    assert_eq!(found(), Vec::<String>::new());
    assert_eq!(files(&kms), [kms::path(&kms.disk("other"), "path")]);
    assert_eq!(briefly(&kms, "other", byte), 0);
}

#[test]
fn rule_i04_a_disk_from_a_snapshot_has_its_size_to_the_last_sector() {
    let kms = with_disk();
    let end = |size: u64| size / 512 - 8;
    briefly(&kms, "data", |guest| guest.write(end(1 << 20), &[7; BLOCK]));
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["disk", "create", "same", "--snapshot", "one"]);
    kms.ok(&["disk", "create", "larger", "--snapshot", "one", "--size", "3MiB"]);
    for (disk, size) in [("same", 1 << 20), ("larger", 3 << 20)] {
        assert_eq!(kms.disk(disk)["size"], size);
        briefly(&kms, disk, |guest| {
            assert_eq!(guest.read(end(1 << 20), BLOCK), [7; BLOCK]);
            guest.write(end(size), &[8; BLOCK]);
            assert_ne!(guest.write_status(end(size) + 8), 0, "beyond the end of {disk}");
        });
    }
    kms.refused(
        &["disk", "create", "less", "--snapshot", "one", "--size", "512K"],
        "SizeBelowSource",
        Some("I04"),
    );
}

#[test]
fn rule_d06_a_disk_grows_attached_and_detached() {
    let kms = with_disk();
    kms.ok(&["disk", "resize", "data", "--size", "2MiB"]);
    with_guest(&kms, "data", |guest| {
        guest.write(4096 - 8, &[1; BLOCK]);
        assert_ne!(guest.write_status(4096), 0, "beyond the end");
        kms.ok(&["disk", "resize", "data", "--size", "4MiB"]);
        guest.write(8192 - 8, &[2; BLOCK]);
        assert_eq!(guest.read(4096, BLOCK), [0; BLOCK]);
    });
    let mut pid = kms.backend("data").unwrap();
    process::kill(pid);
    pid = eventually("a new serving process", || {
        kms.backend("data").filter(|new| *new != pid)
    });
    assert!(process::is_running(pid));
    let socket = kms::path(&kms.disk("data"), "socket").to_owned();
    assert_eq!(Guest::connect(&socket).read(8192 - 8, BLOCK), [2; BLOCK]);
    kms.refused(
        &["disk", "resize", "data", "--size", "3MiB"],
        "CannotShrink",
        Some("D06"),
    );
}

#[test]
fn rule_d07_a_reinitialised_disk_reads_zeros_and_keeps_its_snapshots() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["disk", "reinit", "data"]);
    assert_eq!(briefly(&kms, "data", byte), 0);
    kms.ok(&["rollback", "data", "one"]);
    assert_eq!(briefly(&kms, "data", byte), 1);
}

#[test]
fn a_plain_disk_can_have_snapshots_and_clones() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &["--encrypted=false"]);
    briefly(&kms, "data", |guest| write(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    let clone = kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
    assert_eq!(clone["encrypted"], false);
    assert_eq!(briefly(&kms, "clone", byte), 1);
    assert_eq!(kms.metered("snapshot"), 0);
}

#[test]
fn a_disk_is_shown_and_checked_and_damage_is_found() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    kms.ok(&["snapshot", "create", "data", "one"]);
    for attached in [false, true] {
        if attached {
            kms.ok(&["attach", "data", "vm"]);
        }
        let disk = kms.disk("data");
        assert!(disk["allocated"].as_u64() > Some(0), "{disk}");
        assert!(disk["shared_bytes"].as_u64() >= Some(BLOCK as u64), "{disk}");
        assert!(disk["snapshots"][0]["unique_bytes"].is_u64(), "{disk}");
        let check = kms.ok(&["disk", "check", "data"]);
        assert_eq!(check["clean"], true, "{check}");
    }
    kms.refused(&["disk", "check", "data", "--repair"], "DiskAttached", None);
    kms.ok(&["detach", "data"]);
    assert_eq!(kms.ok(&["disk", "check", "data", "--repair"])["clean"], true);
    let text_of = |arguments: &[&str]| kms.sealctl(arguments).text();
    assert!(text_of(&["snapshot", "list", "data"]).starts_with("SNAPSHOT"));
    assert!(text_of(&["disk", "show", "data"]).contains("shared:"));
    assert!(text_of(&["disk", "check", "data"]).contains("nothing found"));
    // Both superblocks.
    let path = kms::path(&kms.disk("data"), "path").to_owned();
    damage(&path);
    kms.refused(&["snapshot", "create", "data", "two"], "StoreDamaged", None);
    kms.refused(&["attach", "data", "vm"], "StoreDamaged", None);
    let warnings = kms.disk("data")["warnings"].to_string();
    assert!(
        warnings.contains("cannot be asked"),
        "it is shown all the same, as it was: {warnings}"
    );
}

fn damage(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(path).unwrap();
    for cluster in [0, 16] {
        file.write_all_at(&[0xff; 64 << 10], cluster << 16).unwrap();
    }
}

/// The daemon dies at any moment of a series of calls; whatever it was told and whatever the store has, they agree.
#[test]
fn a_killed_daemon_and_its_stores_agree_afterwards() {
    let mut kms = with_disk();
    briefly(&kms, "data", |guest| write(guest, 1));
    for round in 0..6u64 {
        let attached = round % 2 == 1;
        if attached {
            kms.ok(&["attach", "data", "vm"]);
        }
        let calls: Vec<_> = (0..4)
            .map(|number| {
                let name = format!("r{round}-{number}");
                let mut call = kms.sealctl_program(&["snapshot", "create", "data", &name]);
                call.stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null());
                call.spawn().unwrap()
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(15 * round));
        kms.kill();
        for mut call in calls {
            call.wait().unwrap();
        }
        kms.serve();
        // What was open at the start is settled before or soon after the daemon serves.
        let snapshots = eventually("no call is under way", || {
            let list = kms.ok(&["snapshot", "list", "data"]);
            let rows = list["snapshots"].as_array().unwrap().clone();
            let settled = rows.iter().all(|row| row["state"] == "available");
            (settled && rows.iter().all(|row| row["unique_bytes"].is_u64())).then_some(rows)
        });
        assert_eq!(
            snapshots.len() as u64,
            kms.metered("snapshot"),
            "each is charged once"
        );
        if attached {
            kms.ok(&["detach", "data", "--force"]);
        }
    }
    for row in kms.ok(&["snapshot", "list", "data"])["snapshots"]
        .as_array()
        .unwrap()
    {
        kms.ok(&["snapshot", "delete", text(row, "id")]);
    }
    assert_eq!(kms.ok(&["disk", "check", "data"])["clean"], true);
    assert_eq!(briefly(&kms, "data", byte), 1);
}

/// How often its threads have waited for something so far (proc(5), `/proc/pid/task/tid/status`).
fn waits(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let count = |path: PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    tasks.map(|task| count(task.path())).sum()
}

#[test]
fn a_disk_at_rest_wakes_for_nothing_and_gives_freed_space_back_when_it_works_again() {
    const SIZE: usize = 2 << 20;
    const PART: usize = 64 << 10;
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["disk", "create", "data", "--size", &SIZE.to_string()]);
    let socket = kms::path(&kms.ok(&["attach", "data", "vm"]), "socket").to_owned();
    let pid = kms.backend("data").unwrap();
    let mut guest = Guest::connect(&socket);
    for round in 0..2 {
        for at in (0..SIZE).step_by(PART) {
            guest.write((at / 512) as u64, &[round + 1; PART]);
        }
        guest.flush();
        kms.ok(&["snapshot", "create", "data", "one"]);
        let with_snapshot = allocated(&kms);
        at_rest(pid);
        // Everything is written anew, and then the snapshot alone has the old data.
        for at in (0..SIZE).step_by(PART) {
            guest.write((at / 512) as u64, &[round + 10; PART]);
        }
        guest.flush();
        assert!(allocated(&kms) > with_snapshot + SIZE as u64 / 2);
        at_rest(pid);
        kms.ok(&["snapshot", "delete", "data/one"]);
        eventually("its space is given back", || {
            (allocated(&kms) < with_snapshot + SIZE as u64 / 2).then_some(())
        });
        at_rest(pid);
    }
}

fn allocated(kms: &Kms) -> u64 {
    kms.ok(&["disk", "show", "data"])["allocated"].as_u64().unwrap()
}

/// Waits until the process does nothing for a while.
fn at_rest(pid: i32) {
    eventually("it sleeps", || {
        let before = waits(pid);
        std::thread::sleep(std::time::Duration::from_secs(1));
        (waits(pid) == before).then_some(())
    });
}
