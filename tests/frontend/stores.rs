//! Stores that fail: full, short, or unable to sync. Made from small tmpfs mounts and loop devices, which needs root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealblk::disk::Disk;
use sealblk::store::layered::{Expected, NewStore, ObjectId, Uuid};
use sealblk::store::{FilePair, LayeredFile, Store};
use sealblk::units::{ByteLen, Capacity};
use sealblk_proto::message::{Command as Order, Outcome, StoreKind, code};

use crate::driver::*;
use crate::stage::Stage;

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

/// A file system on such a device; unmounted when dropped, before the device goes.
struct Mounted {
    directory: tempfile::TempDir,
    _device: LoopDevice,
    _image: tempfile::NamedTempFile,
}

impl Mounted {
    /// Made by `mkfs.KIND`, where that is there.
    fn of_4k_sectors(kind: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting {kind} needs root");
            return None;
        }
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(400 * MIB).unwrap();
        let device = LoopDevice::on(image.path())?;
        match Command::new(format!("mkfs.{kind}"))
            .arg("-q")
            .arg(&device.0)
            .status()
        {
            Ok(made) => assert!(made.success()),
            Err(error) => {
                eprintln!("SKIPPED: mkfs.{kind}: {error}");
                return None;
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .arg(&device.0)
            .arg(directory.path())
            .status();
        assert!(mount.unwrap().success());
        Some(Mounted {
            directory,
            _device: device,
            _image: image,
        })
    }

    /// A new file, as a disk's is made: its blocks are there and have never been written.
    fn unwritten(&self, name: &str, size: u64) -> PathBuf {
        let path = self.directory.path().join(name);
        let file = File::create_new(&path).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path())
            .status();
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Any sector can be written and read, from the first process on: some requests are neither whole blocks of the device nor
/// begin with one.
fn takes_any_sector(rig: &Rig) {
    assert!(!rig.disk.store().is_direct());
    let mut driver = Driver::simple(rig);
    for (sector, sectors) in [(0, 8), (1, 1), (7, 2), (16, 4), (2047, 1)] {
        let data = pattern(sector + 1, sectors * 512);
        assert_eq!(driver.write(sector, &data), OK, "sector {sector}");
        assert_eq!(driver.read(sector, data.len()), data, "sector {sector}");
    }
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
}

fn any_sector_can_be_used_on(kind: &str) {
    let Some(mounted) = Mounted::of_4k_sectors(kind) else {
        return;
    };
    let size = 4 * MIB;
    let options = || Options {
        size,
        ..Options::default()
    };
    let raw = mounted.unwritten("raw", size);
    takes_any_sector(&Rig::on(options(), open(&raw), tempfile::tempdir().unwrap()));

    let layered = mounted.directory.path().join("layered");
    File::create_new(&layered).unwrap();
    let pair = || FilePair {
        data: open(&layered),
        metadata: open(&layered),
    };
    let capacity = Capacity::new(ByteLen(size)).unwrap();
    let new = NewStore {
        uuid: Uuid([7; 16]),
        capacity,
        disk: ObjectId([b'd'; 16]),
        lineage: ObjectId::NONE,
    };
    drop(LayeredFile::create(pair(), Vec::new(), &new, None).unwrap());
    let store =
        Store::Layered(LayeredFile::open(pair(), Vec::new(), &Expected::default(), true, &|| {}).unwrap());
    let disk = Disk::new(capacity, false, "", Some(cipher(size)), store);
    takes_any_sector(&Rig::serve(
        options(),
        disk,
        open(&layered),
        tempfile::tempdir().unwrap(),
    ));
}

#[test]
fn any_sector_can_be_used_in_a_file_on_ext4_on_a_device_of_4_kib_sectors() {
    any_sector_can_be_used_on("ext4");
}

#[test]
fn any_sector_can_be_used_in_a_file_on_xfs_on_a_device_of_4_kib_sectors() {
    any_sector_can_be_used_on("xfs");
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

/// The process whose store fails goes on as one that has failed, and no other takes its place as if nothing had been.
fn stays_failed(kind: StoreKind) {
    let Some(small) = SmallTmpfs::mount() else { return };
    drop(small.file(32 * MIB));
    let Some(device) = LoopDevice::on(&small.0.path().join("disk")) else {
        return;
    };
    let stage = Stage::on(kind, 16 * MIB, Path::new(&device.0));
    let mut served = stage.serve();
    let mut driver =
        Driver::connect(&stage.path("vhost.sock")).running(VERSION_1 | PROTOCOL_FEATURES | FLUSH, 1, 128);
    assert_eq!(
        driver.write(0, &pattern(2, 4 << 20)),
        OK,
        "the page cache takes it"
    );
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (IOERR, 1));
    let (outcome, next) = stage.replace(&mut served);
    assert!(next.is_none());
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.code, code::STORE_UNUSABLE);
    assert!(failure.message.contains("(os error "), "{failure}");
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (IOERR, 1));
    assert_eq!(driver.write(0, &pattern(1, 4096)), IOERR);
    let held = served.order(Order::Quiesce { hold_ms: 20_000 });
    assert!(matches!(held, Outcome::Failed(failure) if failure.message.contains("(os error ")));
    served.asked_by_later(false);
    let stats = served.stats();
    assert!(stats.poisoned && stats.cause.is_none());
    served.asked_by_later(true);
    let cause = served.stats().cause.unwrap();
    assert!(cause.contains("(os error "), "{cause}");
    drop(driver);
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    let (status, log) = served.exit();
    assert_eq!(status, Some(0), "{log}");
    let told = log.lines().filter(|line| line.contains("the store fails"));
    assert_eq!(told.count(), 1, "{log}");
}

#[test]
fn a_raw_store_that_has_failed_stays_so_and_is_not_handed_over() {
    stays_failed(StoreKind::Raw);
}

#[test]
fn a_layered_store_that_has_failed_stays_so_and_is_not_handed_over() {
    stays_failed(StoreKind::Layered);
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
