//! Stores that fail: full, short, or unable to sync. Made from small tmpfs mounts and loop devices, which needs root.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::driver::*;

const MIB: u64 = 1 << 20;

/// A tmpfs of one MiB; unmounted when dropped.
struct SmallTmpfs(tempfile::TempDir);

impl SmallTmpfs {
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting a small tmpfs needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(directory.path())
            .status();
        assert!(mount.unwrap().success());
        Some(SmallTmpfs(directory))
    }

    fn file(&self, size: u64) -> File {
        let path = self.0.path().join("disk");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.set_len(size).unwrap();
        file
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A loop device with sectors of 4096 bytes; detached when dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn on(file: &Path) -> Option<Self> {
        let output = Command::new("losetup")
            .args(["--sector-size", "4096", "--find", "--show"])
            .arg(file)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(LoopDevice(
                String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            )),
            other => {
                eprintln!("SKIPPED: no loop device: {other:?}");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn rig_on(file: File) -> Rig {
    Rig::on(Options::default(), file, tempfile::tempdir().unwrap())
}

#[test]
fn a_full_file_system_is_an_error_to_the_guest() {
    let Some(small) = SmallTmpfs::mount() else { return };
    let rig = rig_on(small.file(32 * MIB));
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(0, &pattern(1, 512 << 10)), OK);
    assert_eq!(driver.write(4096, &pattern(2, 2 << 20)), IOERR);
    assert_eq!(
        driver.write(0, &pattern(3, 4096)),
        OK,
        "what has space can be overwritten"
    );
    assert_eq!(driver.read(0, 4096), pattern(3, 4096));
}

#[test]
fn a_transfer_that_ends_short_is_an_error_to_the_guest() {
    let Some(small) = SmallTmpfs::mount() else { return };
    let rig = rig_on(small.file(32 * MIB));
    std::fs::write(small.0.path().join("ballast"), vec![0; 900 << 10]).unwrap();
    let mut driver = Driver::simple(&rig);
    // One transfer, of which only the first part fits.
    assert_eq!(driver.write(0, &pattern(1, 256 << 10)), IOERR);
}

/// The device's blocks are larger than sectors, so I/O goes through the page cache, which takes writes that the full
/// file system behind the device cannot keep. The sync tells.
#[test]
fn a_failed_sync_is_told_and_poisons_the_disk() {
    let Some(small) = SmallTmpfs::mount() else { return };
    drop(small.file(32 * MIB));
    let Some(device) = LoopDevice::on(&small.0.path().join("disk")) else {
        return;
    };
    let rig = rig_on(File::options().read(true).write(true).open(&device.0).unwrap());
    assert!(!rig.disk.store().is_direct());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(3, &pattern(1, 512)), OK);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    assert_eq!(driver.read(3, 512), pattern(1, 512));
    assert_eq!(
        driver.write(0, &pattern(2, 4 << 20)),
        OK,
        "the page cache takes it"
    );
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (IOERR, 1));
    assert!(rig.disk.is_poisoned());
    assert_eq!(driver.write(3, &pattern(1, 512)), IOERR);
    assert!(rig.disk.sync().is_err());
}

#[test]
fn a_driver_that_cannot_flush_gets_durable_writes() {
    let Some(small) = SmallTmpfs::mount() else { return };
    drop(small.file(32 * MIB));
    let Some(device) = LoopDevice::on(&small.0.path().join("disk")) else {
        return;
    };
    let rig = rig_on(File::options().read(true).write(true).open(&device.0).unwrap());
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES, 1, 128);
    assert_eq!(driver.write(0, &pattern(1, 4096)), OK);
    assert_eq!(
        driver.write(0, &pattern(2, 4 << 20)),
        IOERR,
        "it cannot be made durable"
    );
}

/// As a quiesce, a detach and SIGTERM do it.
#[test]
fn a_sync_outside_of_the_queues_tells_and_poisons_as_well() {
    let Some(small) = SmallTmpfs::mount() else { return };
    drop(small.file(32 * MIB));
    let Some(device) = LoopDevice::on(&small.0.path().join("disk")) else {
        return;
    };
    let rig = rig_on(File::options().read(true).write(true).open(&device.0).unwrap());
    let mut driver = Driver::simple(&rig);
    rig.disk.sync().unwrap();
    assert_eq!(
        driver.write(0, &pattern(2, 4 << 20)),
        OK,
        "the page cache takes it"
    );
    assert!(rig.disk.sync().is_err());
    assert!(rig.disk.is_poisoned());
}
