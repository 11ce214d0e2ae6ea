//! Stores of real disks that are put back, exchanged or left behind: what is found, and what is none of that.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sealblk_e2e::eventually;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms};
use sealblk_e2e::process::{kill, signal};

const BLOCK: usize = 4096;
/// Where the copies of the superblock lie.
const COPIES: [u64; 2] = [0, 256 * BLOCK as u64];

fn with_disk() -> (Kms, PathBuf) {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let path = kms::path(&kms.disk("data"), "path").to_owned();
    (kms, path)
}

/// Attaches the disk, writes a block, and detaches it.
fn write(kms: &Kms, value: u8) {
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(8, &[value; BLOCK]);
    guest.flush();
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
}

/// What a guest reads where that is written.
fn read(kms: &Kms, options: &[&str]) -> u8 {
    let attachment = kms.ok(&[&["attach", "data", "vm"], options].concat());
    let block = Guest::connect(kms::path(&attachment, "socket")).read(8, BLOCK);
    kms.ok(&["detach", "data", "--force"]);
    assert!(block.iter().all(|byte| *byte == block[0]));
    block[0]
}

fn is_refused(kms: &Kms, code: &str) {
    for call in [
        &["attach", "data", "vm"][..],
        &["snapshot", "create", "data", "refused"],
        &["disk", "check", "data"],
        &["disk", "check", "data", "--repair"],
        &["disk", "resize", "data", "--size", "2GiB"],
    ] {
        kms.refused(call, code, None);
    }
}

#[test]
fn an_older_copy_of_the_file_is_served_only_on_purpose() {
    let (mut kms, path) = with_disk();
    write(&kms, 1);
    let older = fs::read(&path).unwrap();
    write(&kms, 2);
    let newest = fs::read(&path).unwrap();
    kms.stop();
    fs::write(&path, &older).unwrap();
    kms.serve();
    is_refused(&kms, "StoreRolledBack");
    assert_eq!(fs::read(&path).unwrap(), older, "nothing was written to it");
    fs::write(&path, &newest).unwrap();
    assert_eq!(read(&kms, &[]), 2);
    fs::write(&path, &older).unwrap();
    assert_eq!(read(&kms, &["--accept-older"]), 1);
    assert!(
        kms.sealctl(&["audit", "list"])
            .text()
            .contains("attach.accept-older")
    );
    assert_eq!(read(&kms, &[]), 1);
}

/// By another KMS, or by somebody who has served the file by hand.
#[test]
fn a_store_that_was_written_to_since_it_was_closed_is_served_only_on_purpose() {
    let (mut kms, path) = with_disk();
    write(&kms, 1);
    kms.stop();
    let closed = fs::read(&path).unwrap();
    let catalogue = kms.state().join("catalogue.db");
    let before = fs::read(&catalogue).unwrap();
    kms.serve();
    write(&kms, 2);
    kms.stop();
    // As if another one had written that: this catalogue knows nothing of it.
    fs::write(&catalogue, before).unwrap();
    for log in ["catalogue.db-wal", "catalogue.db-shm"] {
        let _ = fs::remove_file(kms.state().join(log));
    }
    kms.serve();
    is_refused(&kms, "StoreRolledBack");
    assert_eq!(read(&kms, &["--accept-older"]), 2);
    fs::write(&path, closed).unwrap();
    is_refused(&kms, "StoreRolledBack");
}

/// The last checkpoint comes after the answer to a detach.
#[test]
fn what_was_there_before_the_last_checkpoint_of_a_detach_is_older() {
    let (kms, path) = with_disk();
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(8, &[1; BLOCK]);
    guest.flush();
    drop(guest);
    let before = fs::read(&path).unwrap();
    kms.ok(&["detach", "data", "--force"]);
    let closed = fs::read(&path).unwrap();
    assert_ne!(before[..BLOCK], closed[..BLOCK], "there was something to be done");
    fs::write(&path, before).unwrap();
    is_refused(&kms, "StoreRolledBack");
    fs::write(&path, closed).unwrap();
    assert_eq!(read(&kms, &[]), 1);
}

#[test]
fn what_a_process_without_a_guest_changes_counts_too() {
    let (kms, path) = with_disk();
    write(&kms, 1);
    for call in [
        &["snapshot", "create", "data", "one"][..],
        &["disk", "check", "data", "--repair"],
        &["rollback", "data", "one"],
        &["disk", "resize", "data", "--size", "2GiB"],
        &["disk", "reinit", "data"],
        &["disk", "create", "clone", "--snapshot", "data/one"],
    ] {
        let older = fs::read(&path).unwrap();
        kms.ok(call);
        let newest = fs::read(&path).unwrap();
        fs::write(&path, &older).unwrap();
        kms.refused(&["attach", "data", "vm"], "StoreRolledBack", None);
        fs::write(&path, &newest).unwrap();
    }
    assert_eq!(read(&kms, &[]), 0);
}

#[test]
fn another_disk_s_file_is_never_served() {
    let (kms, path) = with_disk();
    write(&kms, 1);
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.create("other", &[]);
    kms.ok(&["disk", "create", "clone", "--snapshot", "data/one"]);
    let own = fs::read(&path).unwrap();
    for other in ["other", "clone"] {
        fs::copy(kms::path(&kms.disk(other), "path"), &path).unwrap();
        is_refused(&kms, "StoreForeign");
        kms.refused(&["attach", "data", "vm", "--accept-older"], "StoreForeign", None);
    }
    // Nor is it copied from.
    kms.create("to", &[]);
    let refused = kms.sealctl(&["disk", "copy", "data", "to"]);
    assert!(
        format!("{refused:?}").contains("the store is that of"),
        "{refused:?}"
    );
    fs::write(&path, own).unwrap();
    assert_eq!(read(&kms, &["--accept-older"]), 1);
}

#[test]
fn one_damaged_copy_of_the_superblock_is_no_rollback() {
    let (kms, path) = with_disk();
    for copy in COPIES {
        write(&kms, 1);
        damage(&path, copy);
        assert_eq!(read(&kms, &[]), 1);
        damage(&path, copy);
        kms.ok(&["disk", "check", "data", "--repair"]);
        assert_eq!(read(&kms, &[]), 1);
    }
}

fn damage(path: &Path, copy: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, copy + 300).unwrap();
    file.write_all_at(&[!byte[0]], copy + 300).unwrap();
}

#[test]
fn a_disk_whose_process_or_daemon_was_killed_is_served_again() {
    let (mut kms, path) = with_disk();
    write(&kms, 1);
    let older = fs::read(&path).unwrap();
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(8, &[2; BLOCK]);
    guest.flush();
    drop(guest);
    // Nobody sees the end of the process, nor of the next one, which is killed by a detach.
    kms.kill();
    kill(kms::pid(&attachment));
    kms.serve();
    let pid = served(&kms);
    signal(pid, Signal::STOP);
    kms.ok(&["detach", "data", "--force"]);
    assert_eq!(read(&kms, &[]), 2);
    // What is put in its place while it is attached is not older than what its process had found either.
    kms.ok(&["attach", "data", "vm"]);
    let newest = fs::read(&path).unwrap();
    let pid = served(&kms);
    kms.kill();
    kill(pid);
    fs::write(&path, &older).unwrap();
    kms.serve();
    eventually("the reason", || {
        kms.disk("data")
            .to_string()
            .contains("StoreRolledBack")
            .then_some(())
    });
    fs::write(&path, &newest).unwrap();
    served(&kms);
    kms.ok(&["detach", "data"]);
    assert_eq!(read(&kms, &[]), 2);
}

/// The process that serves the disk, when it does.
fn served(kms: &Kms) -> i32 {
    eventually("a process", || kms.backend("data"))
}
