//! Files and block devices that were given for disks: what is not surely a disk's is neither served nor lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Kms, MIB, json, refused};

fn create(name: &str, path: &str) -> serde_json::Value {
    json!({"name": name, "size": MIB, "path": path, "store": "raw"})
}

fn delete(kms: &Kms, disk: &str) {
    let path = format!("/v1/disks/{disk}?retention_days=0");
    assert_eq!(kms.call("DELETE", &path, None).0, 200);
}

#[test]
fn an_adopted_file_outlives_a_failed_create_and_the_disk() {
    let kms = Kms::active();
    let path = kms.path("mine");
    std::fs::write(&path, "").unwrap();
    let mut body = create("data", &path);
    body["size"] = json!(60u64 << 40);
    kms.refuses("/v1/disks", body, "NoSpace", None);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    kms.make("/v1/disks", create("data", &path));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), MIB);
    delete(&kms, "data");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    kms.make("/v1/disks", create("again", &path));
}

#[test]
fn a_file_in_the_place_of_a_store_is_neither_served_nor_removed() {
    let kms = Kms::active();
    kms.instance("vm");
    let path = kms.path("store");
    kms.make("/v1/disks", create("data", &path));
    // On ext4 the new file has the inode of the old one.
    std::fs::remove_file(&path).unwrap();
    let precious = vec![b'x'; MIB as usize];
    std::fs::write(&path, &precious).unwrap();
    kms.refuses(
        "/v1/attachments",
        json!({"disk": "data", "instance": "vm"}),
        "StoreUnusable",
        None,
    );
    delete(&kms, "data");
    assert!(std::fs::read(&path).unwrap() == precious);
}

#[test]
fn a_file_of_the_state_directory_may_be_moved_to_other_storage() {
    let kms = Kms::active();
    kms.instance("vm");
    let path = kms.disk("data")["path"].as_str().unwrap().to_owned();
    std::fs::copy(&path, kms.path("copy")).unwrap();
    std::fs::rename(kms.path("copy"), &path).unwrap();
    kms.attach("data", "vm");
}

#[test]
fn after_a_restore_a_copy_at_the_path_is_served_and_never_removed() {
    let mut kms = Kms::active();
    kms.instance("vm");
    let path = kms.path("store");
    kms.make("/v1/disks", create("data", &path));
    let backup = kms.path("backup");
    assert!(kms.run(&["backup", &backup]).status.success());
    assert_eq!(kms.stop(), Some(0));
    std::fs::copy(&path, kms.path("copy")).unwrap();
    std::fs::rename(kms.path("copy"), &path).unwrap();
    let old = PathBuf::from(kms.path("old"));
    std::fs::rename(kms.state(), &old).unwrap();
    assert!(kms.run(&["restore", &backup]).status.success());
    std::fs::copy(old.join("root.key"), kms.state().join("root.key")).unwrap();
    kms.serve();
    kms.attach("data", "vm");
    let (status, answer) = kms.post("/v1/disks/data/detach", json!({"force": true}));
    assert_eq!(status, 200, "{answer}");
    delete(&kms, "data");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), MIB);
}

/// A loop device, and a link to it with a name that does not change.
struct Device {
    device: String,
    mounted: Option<PathBuf>,
}

impl Device {
    /// None if this machine or user cannot make loop devices.
    fn new(kms: &Kms, name: &str, size: u64) -> Option<Self> {
        let file = kms.path(name);
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        let output = Command::new("losetup").args(["--find", "--show", &file]).output();
        match output {
            Ok(output) if output.status.success() => Some(Device {
                device: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
                mounted: None,
            }),
            other => {
                eprintln!("skipped: a loop device cannot be made here (that takes root): {other:?}");
                None
            }
        }
    }

    fn run(&self, program: &str, words: &[&str]) -> bool {
        let output = Command::new(program).args(words).output();
        let done = output.as_ref().is_ok_and(|output| output.status.success());
        if !done {
            eprintln!("{program} {words:?}: {output:?}");
        }
        done
    }

    fn link(&self, path: &str) {
        let _ = std::fs::remove_file(path);
        std::os::unix::fs::symlink(&self.device, path).unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(directory) = &self.mounted {
            self.run("umount", &[directory.to_str().unwrap()]);
        }
        self.run("losetup", &["--detach", &self.device]);
    }
}

#[test]
fn a_device_is_taken_by_a_stable_name_and_known_again() {
    let kms = Kms::active();
    let (Some(first), Some(second)) = (
        Device::new(&kms, "first", 4 * MIB),
        Device::new(&kms, "second", 4 * MIB),
    ) else {
        return;
    };
    kms.instance("vm");
    let link = kms.path("by-id");
    first.link(&link);
    let disk = kms.make("/v1/disks", create("data", &link));
    assert_eq!(
        (&disk["path"], &disk["allocated"]),
        (&json!(link), &json!(4 * MIB))
    );
    // The same device, by its other name.
    kms.refuses("/v1/disks", create("again", &first.device), "FileInUse", None);
    kms.attach("data", "vm");
    let (status, answer) = kms.post("/v1/disks/data/detach", json!({"force": true}));
    assert_eq!(status, 200, "{answer}");
    second.link(&link);
    let attach = json!({"disk": "data", "instance": "vm"});
    let answer = kms.refuses("/v1/attachments", attach, "StoreUnusable", None);
    assert!(
        answer["message"].as_str().unwrap().contains("created on"),
        "{answer}"
    );
    first.link(&link);
    kms.attach("data", "vm");
    let (status, answer) = kms.call("DELETE", "/v1/disks/data?retention_days=0", None);
    refused(status, &answer, "DiskAttached", None);
}

/// What an attempt has left at the beginning of a device is ours, and no reason to refuse it.
#[test]
fn a_backup_to_a_device_is_begun_again_after_an_attempt_that_failed() {
    let mut kms = Kms::active();
    let Some(device) = Device::new(&kms, "device", 64 * MIB) else {
        return;
    };
    kms.disk("data");
    kms.behave("unfit");
    assert_eq!(kms.stop(), Some(0));
    kms.serve();
    kms.make(
        "/v1/backups",
        json!({"disk": "data", "name": "b", "path": device.device}),
    );
    kms.until("the device is taken", || {
        kms.query("SELECT count(*) FROM volumes WHERE identity IS NOT NULL") == 1
    });
    assert_eq!(kms.stop(), Some(0));
    std::fs::OpenOptions::new()
        .write(true)
        .open(&device.device)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"the beginning of a store"))
        .unwrap();
    kms.serve();
    kms.until("it is blank", || {
        let mut beginning = [1; 24];
        let mut file = std::fs::File::open(&device.device).unwrap();
        std::io::Read::read_exact(&mut file, &mut beginning).unwrap();
        beginning == [0; 24]
    });
}

/// Zeros are written to it as all else is: it may hold old data behind its beginning.
#[test]
fn an_export_to_a_device_leaves_nothing_out() {
    let mut kms = Kms::active();
    let Some(device) = Device::new(&kms, "device", 4 * MIB) else {
        return;
    };
    kms.disk("data");
    kms.behave("halts");
    assert_eq!(kms.stop(), Some(0));
    kms.serve();
    for (file, clean) in [(kms.path("file"), 1), (device.device.clone(), 0)] {
        kms.make("/v1/disks/data/export", json!({"file": file, "decrypt": true}));
        kms.until("it goes on", || kms.get("/v1/disks/data")["copy"]["done"] == 4096);
        let found = kms.query("SELECT clean FROM copies WHERE phase = 'copy'");
        assert_eq!(found, clean, "{file}");
        kms.make("/v1/disks/data/copy/cancel", json!({}));
    }
}

#[test]
fn unfit_devices_are_refused() {
    let kms = Kms::active();
    let Some(mut device) = Device::new(&kms, "image", 16 * MIB) else {
        return;
    };
    let path = device.device.clone();
    let mut large = create("data", &path);
    large["size"] = json!(17 * MIB);
    kms.refuses("/v1/disks", large, "DeviceTooSmall", None);
    if device.run("mkfs.ext4", &["-q", &path]) {
        let answer = kms.refuses("/v1/disks", create("data", &path), "FileNotEmpty", None);
        assert!(answer["message"].as_str().unwrap().contains("wipefs"), "{answer}");
        let directory = PathBuf::from(kms.path("mount"));
        std::fs::create_dir(&directory).unwrap();
        if device.run("mount", &[&path, directory.to_str().unwrap()]) {
            device.mounted = Some(directory);
            kms.refuses("/v1/disks", create("data", &path), "FileInUse", None);
        }
    } else {
        eprintln!("skipped: a device with a file system, for mkfs.ext4 does not work here");
    }
}

#[test]
fn a_plain_disk_on_a_device_reads_zeros_and_an_encrypted_one_is_left_as_it_is() {
    let kms = Kms::active();
    let Some(device) = Device::new(&kms, "image", 4 * MIB) else {
        return;
    };
    // Old data behind the first MiB.
    let old = vec![7; MIB as usize];
    let write = || {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&device.device)
            .unwrap();
        file.write_all_at(&old, 2 * MIB).unwrap();
        file.sync_all().unwrap();
    };
    let read = || std::fs::read(Path::new(&device.device)).unwrap();
    write();
    let mut body = create("data", &device.device);
    body["size"] = json!(4 * MIB);
    kms.make("/v1/disks", body.clone());
    delete(&kms, "data");
    assert!(read()[2 * MIB as usize..3 * MIB as usize] == old);
    body["encrypted"] = json!(false);
    kms.make("/v1/disks", body);
    assert!(read().iter().all(|byte| *byte == 0));
}
