//! One process takes over from another under a load, on the same connection: the frontend sees nothing of it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealblk_proto::channel::Channel;
use sealblk_proto::message::{AttachmentConfig, Command as Order, Outcome, StoreKind};

use sealblk::vhost::SuspendError;
use vmm_sys_util::eventfd::EventFd;

use crate::driver::{
    ADD_MEM_REG, Driver, GET_MAX_MEM_SLOTS, GET_QUEUE_NUM, OK, Options, PATIENCE, PROTOCOL_FEATURES, REGIONS,
    REM_MEM_REG, Rig, T_IN, T_OUT, VERSION_1, pattern, readable, writable,
};
use crate::load::{DISK_BYTES, Load};
use crate::reconnect::seed;
use crate::stage::{Served, Stage};

/// Keeps the load going until `work`, which runs meanwhile, is done. Returns what that gave, and the longest time in which
/// nothing was completed.
fn loaded<T: Send>(load: &mut Load, work: impl FnOnce() -> T + Send) -> (T, Duration) {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut longest = Duration::ZERO;
        while !work.is_finished() {
            let start = Instant::now();
            load.fill();
            load.reap();
            longest = longest.max(start.elapsed());
        }
        (work.join().unwrap(), longest)
    })
}

fn survives_upgrades(kind: StoreKind) {
    let stage = Stage::of(kind, DISK_BYTES);
    let mut served = stage.serve();
    let mut load = Load::new(Driver::connect(&stage.path("vhost.sock")), seed());
    for _ in 0..5 {
        let until = load.completed + 500;
        while load.completed < until {
            load.fill();
            load.reap();
        }
        let ((outcome, next), longest) = loaded(&mut load, || stage.replace(&mut served));
        assert_eq!(outcome, Outcome::Done);
        eprintln!("{kind:?}: nothing was completed for at most {longest:?}");
        let next = next.unwrap();
        let (status, log) = std::mem::replace(&mut served, next).exit();
        assert_eq!(status, Some(0), "{log}");
        assert!(served.stats().frontend_connected);
    }
    load.check_all();
    // Who comes next finds the socket where it was; who was killed after an upgrade is replaced as ever.
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    load.fill();
    let mut served = stage.serve();
    load.driver.reconnect(&stage.path("vhost.sock"));
    load.check_all();
    drop(load);
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    assert_eq!(served.exit().0, Some(0));
}

#[test]
fn upgrades_under_load_lose_nothing_on_a_raw_store() {
    survives_upgrades(StoreKind::Raw);
}

#[test]
fn upgrades_under_load_lose_nothing_on_a_layered_store() {
    survives_upgrades(StoreKind::Layered);
}

#[test]
fn a_successor_that_cannot_take_over_changes_nothing() {
    let stage = Stage::of(StoreKind::Layered, DISK_BYTES);
    let mut served = stage.serve();
    let mut load = Load::new(Driver::connect(&stage.path("vhost.sock")), seed());
    for _ in 0..3 {
        let other = AttachmentConfig {
            queues: 1,
            ..stage.config()
        };
        let ((outcome, next), _) = loaded(&mut load, || stage.replace_with(&mut served, other));
        assert!(
            matches!(outcome, Outcome::Failed(_)) && next.is_none(),
            "{outcome:?}"
        );
        // One that dies before it has said a word.
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        let outcome = served.order_with(Order::HandOver, &[ours.as_fd()]);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        assert!(matches!(served.order(Order::HandOver), Outcome::Failed(_)));
        load.fill();
    }
    load.check_all();
    let (outcome, next) = stage.replace(&mut served);
    assert_eq!(outcome, Outcome::Done);
    load.fill();
    load.check_all();
    drop(load);
    let next = next.unwrap();
    next.signal(rustix::process::Signal::TERM);
    assert_eq!(next.exit().0, Some(0));
}

#[test]
fn a_frontend_in_the_middle_of_a_message_is_not_interrupted() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    let header = [GET_QUEUE_NUM, 1, 0].map(u32::to_ne_bytes).concat();
    driver.send_bytes(&header[..5]);
    let suspend = || rig.server.suspend(Instant::now() + Duration::from_millis(200));
    assert_eq!(suspend().err(), Some(SuspendError::Busy));
    driver.send_bytes(&header[5..]);
    assert_eq!(driver.reply().1, 2u64.to_ne_bytes());
    assert_eq!(driver.write(0, &[2; 512]), OK);
    // Between two messages it is; requests wait.
    let suspended = suspend().unwrap();
    assert!(suspend().is_err(), "once");
    driver.send_bytes(&header);
    rig.server.resume(suspended).unwrap();
    assert_eq!(driver.reply().1, 2u64.to_ne_bytes());
    assert_eq!(driver.read(0, 512), [2; 512]);
    assert_eq!(driver.stop_queue(0), 3);
}

/// Of the process that is to abort, which is not the test's own.
const ABORTS: &str = "SEALBLK_TEST_ABORTS";

/// Too late to be taken back, and nothing to wait for: the next process serves what this one cannot any more.
#[test]
fn a_process_whose_queues_do_not_stop_aborts() {
    if std::env::var_os(ABORTS).is_some() {
        return suspend_queue_that_does_not_stop();
    }
    let name = "takeover::a_process_whose_queues_do_not_stop_aborts";
    let mut process = Command::new(std::env::current_exe().unwrap());
    let output = process
        .args(["--exact", name, "--nocapture"])
        .env(ABORTS, "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{log}");
    assert!(log.contains("the queues do not stop"), "{log}");
}

fn suspend_queue_that_does_not_stop() {
    sealblk::logging::start(log::LevelFilter::Info);
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        std::process::exit(1);
    });
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    // As long as this has the turn to sync, no flush ends, and no queue stops that has one.
    assert!(rig.disk.try_begin_sync(&Arc::new(EventFd::new(0).unwrap())));
    driver.begin_flush();
    let suspended = rig.server.suspend(Instant::now() + Duration::from_secs(1));
    panic!("suspended: {}", suspended.is_ok());
}

/// A disk that nobody is connected to.
#[test]
fn an_idle_disk_is_taken_over_with_its_socket() {
    let stage = Stage::of(StoreKind::Raw, DISK_BYTES);
    let mut served = stage.serve();
    let (outcome, next) = stage.replace(&mut served);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(served.exit().0, Some(0));
    let served: Served = next.unwrap();
    let mut load = Load::new(Driver::connect(&stage.path("vhost.sock")), seed());
    load.fill();
    load.check_all();
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

/// A guest with as many memory regions as there can be, each of a page, at the highest addresses.
struct ManyRegions {
    file: File,
    count: u64,
}

const PAGE: u64 = 4096;

impl ManyRegions {
    fn add_to(driver: &mut Driver) -> Self {
        let slots = driver.get_u64(GET_MAX_MEM_SLOTS);
        assert_eq!(slots, 509);
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let count = slots - REGIONS.len() as u64;
        file.set_len((count + 1) * PAGE).unwrap();
        let regions = ManyRegions { file, count };
        for index in 0..count {
            assert_eq!(regions.tell(driver, ADD_MEM_REG, index), 0, "{index}");
        }
        assert_eq!(regions.tell(driver, ADD_MEM_REG, count), 1, "one more");
        regions
    }

    /// Every other page, from the highest address a frontend can have down.
    fn address(index: u64) -> u64 {
        (1 << 52) - 2 * (index + 1) * PAGE
    }

    fn tell(&self, driver: &mut Driver, code: u32, index: u64) -> u64 {
        let body = Driver::region_body_of(Self::address(index), PAGE, index * PAGE);
        let file = [self.file.as_raw_fd()];
        driver.acknowledged(code, &body, if code == ADD_MEM_REG { &file } else { &[] })
    }

    /// Writes a page from one region, and reads it into another.
    fn check(&self, driver: &mut Driver, from: u64, into: u64) {
        let data = pattern(from, PAGE as usize);
        self.file.write_all_at(&data, from * PAGE).unwrap();
        let written = driver.request(0, T_OUT, 8 * from, &[readable(Self::address(from), PAGE as u32)]);
        assert_eq!(written, (OK, 1));
        let read = driver.request(0, T_IN, 8 * from, &[writable(Self::address(into), PAGE as u32)]);
        assert_eq!(read, (OK, PAGE as u32 + 1));
        let mut found = vec![0; PAGE as usize];
        self.file.read_exact_at(&mut found, into * PAGE).unwrap();
        assert_eq!(found, data);
    }
}

#[test]
fn as_many_memory_regions_as_there_can_be_are_served_and_handed_over() {
    let stage = Stage::of(StoreKind::Raw, DISK_BYTES);
    let mut served = stage.serve();
    let mut driver = Driver::connect(&stage.path("vhost.sock"));
    driver.negotiate(VERSION_1 | PROTOCOL_FEATURES);
    driver.send_memory_table();
    let regions = ManyRegions::add_to(&mut driver);
    for queue in 0..2 {
        driver.start_queue(queue, 128, 0);
    }
    regions.check(&mut driver, 0, regions.count - 1);
    for _ in 0..2 {
        let (outcome, next) = stage.replace(&mut served);
        assert_eq!(outcome, Outcome::Done);
        served = next.unwrap();
        regions.check(&mut driver, regions.count - 1, 250);
    }
    // They come and go one by one.
    for index in [0, 250, regions.count - 1] {
        assert_eq!(regions.tell(&mut driver, REM_MEM_REG, index), 0);
        assert_eq!(regions.tell(&mut driver, ADD_MEM_REG, index), 0);
        regions.check(&mut driver, index, 7);
    }
    drop(driver);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}
