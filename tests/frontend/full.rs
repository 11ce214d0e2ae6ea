//! A host that is full: the real process on a small file system.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealblk_proto::message::{AttachmentConfig, Command as Order, OnFull, Outcome, StoreKind};

use crate::driver::*;
use crate::stage::{Served, Stage, eventually};

const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES | FLUSH;
const DISK: u64 = 64 << 20;
/// Of the file system, in MiB.
const MEDIUM: u64 = 24;
const CHUNK: usize = 64 << 10;

/// A file system of its own; gone with the test.
struct Medium(PathBuf);

impl Medium {
    /// None if it cannot be mounted: only root can.
    fn mount(at: &Path) -> Option<Self> {
        let size = format!("size={MEDIUM}m");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Medium(at.to_owned()));
        }
        eprintln!("skipped: a tmpfs cannot be mounted");
        None
    }

    /// Takes all that is left.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let file = File::create(&ballast).unwrap();
        let mut length = 0;
        for step in [1 << 20, 64 << 10, 4096] {
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, step).is_ok() {
                length += step;
            }
        }
        ballast
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn driver(stage: &Stage, recorded: bool) -> Driver {
    let mut driver = Driver::connect(&stage.path("vhost.sock"));
    driver.negotiate(FEATURES);
    if recorded {
        driver.track_inflight(2, 128);
    }
    driver.send_memory_table();
    driver.start_queue(0, 128, 0);
    driver
}

/// Writes to sectors that have not been written, until there is no room. Returns the next of them.
fn write_until_full(driver: &mut Driver) -> u64 {
    for sector in (0..DISK / 512).step_by(CHUNK / 512) {
        match driver.write(sector, &pattern(sector, CHUNK)) {
            OK => {}
            IOERR => return sector,
            other => panic!("status {other}"),
        }
    }
    panic!("there is room for all");
}

const HEADER: u64 = 0x10_0000;
const STATUS: u64 = HEADER + 16;

/// Offers a write and does not wait for it.
fn offer_write(driver: &mut Driver, sector: u64) -> u16 {
    driver.put(DATA, &pattern(sector, CHUNK));
    driver.header(HEADER, T_OUT, sector);
    driver.put(STATUS, &[NO_STATUS]);
    let chain = [
        readable(HEADER, 16),
        readable(DATA, CHUNK as u32),
        writable(STATUS, 1),
    ];
    let head = driver.chain(0, &chain);
    driver.offer(0, head);
    driver.kick(0);
    head
}

fn is_held(served: &mut Served) -> bool {
    let room = served.stats().room.unwrap();
    room.held == 1 && room.is_short
}

fn status(driver: &Driver) -> u8 {
    driver.get(STATUS, 1)[0]
}

/// A write that is held.
struct HeldWrite {
    ballast: PathBuf,
    sector: u64,
    head: u16,
}

/// Fills the host, and has the first write that it has no room for held.
fn hold(medium: &Medium, served: &mut Served, driver: &mut Driver) -> HeldWrite {
    assert_eq!(served.order(Order::OnFull(OnFull::Error)), Outcome::Done);
    let ballast = medium.fill();
    let sector = write_until_full(driver);
    let room = served.stats().room.unwrap();
    assert_eq!((room.on_full, room.is_short, room.held), (OnFull::Error, true, 0));
    assert_eq!(served.order(Order::OnFull(OnFull::Stop)), Outcome::Done);
    let head = offer_write(driver, sector);
    eventually("it is held", || is_held(served));
    assert_eq!(status(driver), NO_STATUS);
    HeldWrite {
        ballast,
        sector,
        head,
    }
}

fn stages() -> impl Iterator<Item = (Stage, Medium)> {
    [StoreKind::Layered, StoreKind::Raw]
        .into_iter()
        .map_while(|kind| {
            let directory = tempfile::tempdir().unwrap();
            let medium = Medium::mount(directory.path())?;
            Some((Stage::within(directory, kind, DISK, 2), medium))
        })
}

#[test]
fn a_full_host_is_an_error_or_writes_wait_for_room() {
    for (stage, medium) in stages() {
        let mut served = stage.serve();
        let mut driver = driver(&stage, false);
        let held = hold(&medium, &mut served, &mut driver);
        let quiesced = served.order(Order::Quiesce { hold_ms: 100 });
        assert_eq!(quiesced, Outcome::Done, "what is held is at rest");
        assert_eq!(served.order(Order::Resume), Outcome::Done);
        std::fs::remove_file(&held.ballast).unwrap();
        assert_eq!((driver.completion(0).0, status(&driver)), (held.head, OK));
        assert_eq!(driver.read(held.sector, CHUNK), pattern(held.sector, CHUNK));
        let room = served.stats().room.unwrap();
        assert_eq!((room.is_short, room.held), (false, 0));
        // What is held when it shall not be any more is answered.
        let held = hold(&medium, &mut served, &mut driver);
        assert_eq!(served.order(Order::OnFull(OnFull::Error)), Outcome::Done);
        assert_eq!((driver.completion(0).0, status(&driver)), (held.head, IOERR));
        drop(driver);
        assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    }
}

#[test]
fn what_is_held_goes_to_the_next_process() {
    for (stage, medium) in stages() {
        let stop = || AttachmentConfig {
            on_full: OnFull::Stop,
            ..stage.config()
        };
        let mut served = stage.serve_as(stage.command(), stop());
        let mut driver = driver(&stage, true);
        let held = hold(&medium, &mut served, &mut driver);
        // One that takes over, and one after a kill.
        let (outcome, successor) = stage.replace_with(&mut served, stop());
        assert_eq!(outcome, Outcome::Done);
        let mut served = successor.unwrap();
        eventually("the successor holds it", || is_held(&mut served));
        served.signal(rustix::process::Signal::KILL);
        served.exit();
        let mut served = stage.serve_as(stage.command(), stop());
        driver.reconnect(&stage.path("vhost.sock"));
        eventually("it is held again", || is_held(&mut served));
        std::fs::remove_file(&held.ballast).unwrap();
        assert_eq!((driver.completion(0).0, status(&driver)), (held.head, OK));
        assert_eq!(driver.read(held.sector, CHUNK), pattern(held.sector, CHUNK));
        drop(driver);
        assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    }
}

#[test]
fn what_is_held_is_answered_where_nobody_takes_it_up() {
    for (stage, medium) in stages() {
        let mut served = stage.serve();
        let mut driver = driver(&stage, false);
        let held = hold(&medium, &mut served, &mut driver);
        driver.stop_queue(0);
        assert_eq!((driver.completion(0).0, status(&driver)), (held.head, IOERR));
        drop(driver);
        assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    }
}
