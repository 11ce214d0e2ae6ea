//! Chains in flight that are noted in the frontend's memory: what a dead backend has left, and what none would leave.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::driver::*;

const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES | FLUSH;
const SIZE: u16 = 128;

/// Bytes from one queue's record to the next one's: as this version makes them, and as one did that took the frontend's
/// word for the size.
const SPACING: u64 = 16448;
const SPACING_AS_SAID: u64 = 2112;

/// The record of a queue.
pub(crate) struct Record<'d> {
    driver: &'d Driver,
    start: u64,
}

impl<'d> Record<'d> {
    /// Of queue 0.
    pub(crate) fn first(driver: &'d Driver) -> Self {
        Self::at(driver, 0)
    }

    fn at(driver: &'d Driver, start: u64) -> Self {
        Record { driver, start }
    }

    pub(crate) fn set(&self, at: u64, bytes: &[u8]) {
        let (_, file) = self.driver.inflight.as_ref().unwrap();
        file.write_all_at(bytes, self.start + at).unwrap();
    }

    fn version(&self) -> u16 {
        let (_, file) = self.driver.inflight.as_ref().unwrap();
        let mut version = [0; 2];
        file.read_exact_at(&mut version, self.start + 8).unwrap();
        u16::from_ne_bytes(version)
    }

    fn set_header(&self, last_batch_head: u16, used: u16) {
        self.set(12, &last_batch_head.to_ne_bytes());
        self.set(14, &used.to_ne_bytes());
    }

    fn set_in_flight(&self, head: u16, counter: u64) {
        let entry = 16 + 16 * u64::from(head);
        self.set(entry, &[1]);
        self.set(entry + 8, &counter.to_ne_bytes());
    }
}

/// A driver whose backend, which had two queues, has gone.
fn abandoned(rig: &Rig) -> Driver {
    abandoned_with(rig, SIZE, |driver| driver.track_inflight(2, SIZE))
}

/// The same, with queues of another size, and with the memory that `track` gives the backend.
fn abandoned_with(rig: &Rig, size: u16, track: impl FnOnce(&mut Driver)) -> Driver {
    let mut driver = Driver::raw(rig);
    driver.negotiate(FEATURES);
    track(&mut driver);
    driver.send_memory_table();
    for queue in 0..2 {
        driver.start_queue(queue, size, 0);
        assert_eq!(driver.request(queue.into(), T_FLUSH, 0, &[]), (OK, 1));
    }
    abandon(rig, &mut driver);
    driver
}

fn abandon(rig: &Rig, driver: &mut Driver) {
    driver.stream.shutdown(std::net::Shutdown::Both).unwrap();
    eventually(|| !rig.server.is_connected());
}

/// Gives the backend memory as an earlier version has made it for two queues of 128.
fn bring_memory_as_said(driver: &mut Driver) {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(2 * SPACING_AS_SAID).unwrap();
    driver.bring_inflight(body(2 * SPACING_AS_SAID, 0, 2, SIZE), file);
}

/// Of GET_INFLIGHT_FD and SET_INFLIGHT_FD.
fn body(bytes: u64, offset: u64, queues: u16, size: u16) -> Vec<u8> {
    let mut body = [bytes.to_ne_bytes(), offset.to_ne_bytes()].concat();
    body.extend_from_slice(&[queues.to_ne_bytes(), size.to_ne_bytes()].concat());
    body
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Offers a request that is answered when it is taken, so that the order shows.
fn offer_get_id(driver: &mut Driver, queue: usize) -> u16 {
    let chain = get_id(driver);
    let head = driver.chain(queue, &chain);
    driver.offer(queue, head);
    head
}

fn get_id(driver: &Driver) -> [Descriptor; 3] {
    driver.header(DATA, T_GET_ID, 0);
    [
        readable(DATA, 16),
        writable(DATA + 0x1000, 20),
        writable(DATA + 16, 1),
    ]
}

#[test]
fn what_was_in_flight_comes_first_and_in_its_order() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    let [first, second, third, fourth] = [(); 4].map(|()| offer_get_id(&mut driver, 0));
    let record = Record::first(&driver);
    record.set_in_flight(first, 900);
    record.set_in_flight(second, 17);
    record.set_in_flight(third, 400);
    // The fourth was not taken, so it comes from the ring.
    driver.reconnect(&rig.socket);
    for head in [second, third, first, fourth] {
        assert_eq!(driver.completion(0), (head, 21));
    }
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    assert_eq!(driver.used_index(0), 6);
    assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1));
}

/// As QEMU 10 does: it speaks of 128 entries where it asks for the memory, and where it gives it back.
#[test]
fn queues_larger_than_the_frontend_has_said_are_recorded_in_whole() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned_with(&rig, 1024, |driver| driver.track_inflight(2, SIZE));
    for (queue, record) in [(0, 0), (1, SPACING)] {
        let chain = get_id(&driver);
        for (head, counter) in [(1000, 2), (129, 1), (500, 3)] {
            driver.chain_at(queue, head, &chain);
            driver.offer(queue, head);
            Record::at(&driver, record).set_in_flight(head, counter);
        }
    }
    driver.reconnect(&rig.socket);
    for queue in [0, 1] {
        for head in [129, 1000, 500] {
            assert_eq!(driver.completion(queue), (head, 21));
        }
        assert_eq!(driver.request(queue, T_FLUSH, 0, &[]), (OK, 1));
    }
}

#[test]
fn memory_of_an_earlier_version_is_read_as_that_has_laid_it() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned_with(&rig, SIZE, bring_memory_as_said);
    for (queue, record) in [(0, 0), (1, SPACING_AS_SAID)] {
        let [first, second] = [(); 2].map(|()| offer_get_id(&mut driver, queue));
        let record = Record::at(&driver, record);
        assert_eq!(record.version(), 1);
        record.set_in_flight(first, 2);
        record.set_in_flight(second, 1);
    }
    driver.reconnect(&rig.socket);
    for queue in [0, 1] {
        // Each has had one request, of two descriptors.
        for head in [5, 2] {
            assert_eq!(driver.completion(queue), (head, 21));
        }
        assert_eq!(driver.request(queue, T_FLUSH, 0, &[]), (OK, 1));
    }
}

/// A queue runs whatever the frontend has brought: at worst nothing is noted.
#[test]
fn a_queue_that_is_too_large_for_its_record_runs_without() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned_with(&rig, 256, bring_memory_as_said);
    assert_eq!(Record::first(&driver).version(), 0, "nothing was noted");
    driver.reconnect(&rig.socket);
    for queue in [0, 1] {
        let head = offer_get_id(&mut driver, queue);
        driver.kick(queue);
        assert_eq!(driver.completion(queue), (head, 21));
    }
    eventually(|| {
        let troubles = rig.server.detail().troubles;
        troubles.len() == 2 && troubles.iter().all(|trouble| trouble.code == "NotRecorded")
    });
    // What was noted of a smaller one is not taken for this one's when it comes back.
    abandon(&rig, &mut driver);
    Record::first(&driver).set(8, &1u16.to_ne_bytes());
    Record::first(&driver).set_in_flight(3, 0);
    driver.reconnect(&rig.socket);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    assert_eq!(Record::first(&driver).version(), 0);
}

/// The backend died between moving the used index and noting that.
#[test]
fn what_was_given_back_is_not_done_again() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    let [first, second] = [(); 2].map(|()| offer_get_id(&mut driver, 0));
    let record = Record::first(&driver);
    record.set_in_flight(first, 1);
    record.set_in_flight(second, 2);
    record.set_header(first, 1);
    driver.put_used(0, first, 21);
    driver.reconnect(&rig.socket);
    assert_eq!(driver.completion(0), (first, 21));
    assert_eq!(driver.completion(0), (second, 21));
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
}

/// A write that a dead backend had taken, and whatever it had done of it.
#[test]
fn a_stop_ends_what_was_in_flight_before_it_is_answered() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    let mut heads = Vec::new();
    for number in 0..20u64 {
        let memory = 0x40_0000 + number * 0x20000;
        driver.header(memory, T_OUT, number * 128);
        driver.put(memory + 0x1000, &pattern(number, 65536));
        let chain = [
            readable(memory, 16),
            readable(memory + 0x1000, 65536),
            writable(memory + 16, 1),
        ];
        let head = driver.chain(0, &chain);
        driver.offer(0, head);
        Record::first(&driver).set_in_flight(head, number);
        heads.push(head);
    }
    driver.reconnect(&rig.socket);
    assert_eq!(driver.stop_queue(0), 21);
    assert_eq!(driver.used_index(0), 21);
    let mut completed: Vec<u16> = (0..20).map(|_| driver.completion(0).0).collect();
    completed.sort_unstable();
    assert_eq!(completed, heads);
    for number in 0..20u64 {
        let mut stored = rig.stored(number * 128, 65536);
        let sector = sealblk::units::Sector(number * 128);
        cipher(32 << 20).decrypt_in_place(sector, &mut stored).unwrap();
        assert_eq!(stored, pattern(number, 65536));
    }
}

/// Requests of a predecessor wait for the end of a hold like all others.
#[test]
fn a_hold_holds_what_was_in_flight() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    rig.barrier.raise(PATIENCE).unwrap();
    let head = offer_get_id(&mut driver, 0);
    Record::first(&driver).set_in_flight(head, 1);
    driver.reconnect(&rig.socket);
    assert_eq!(driver.stop_queue(0), 2, "it stays noted");
    assert_eq!(driver.used_index(0), 1);
    driver.stream.shutdown(std::net::Shutdown::Both).unwrap();
    eventually(|| !rig.server.is_connected());
    rig.barrier.lower();
    driver.reconnect(&rig.socket);
    assert_eq!(driver.completion(0), (head, 21));
}

#[test]
fn a_record_that_makes_no_sense_breaks_its_queue_only() {
    let rig = Rig::new(Options::default());
    let spoil: [fn(&mut Driver); 6] = [
        |driver| Record::first(driver).set(8, &9u16.to_ne_bytes()),
        |driver| Record::first(driver).set(10, &2048u16.to_ne_bytes()),
        |driver| Record::first(driver).set_header(0, 500),
        |driver| Record::first(driver).set_header(4711, 0),
        |driver| Record::first(driver).set(16, &[0xff]),
        // In flight for long enough, and offered again.
        |driver| {
            driver.header(DATA, T_OUT, 0);
            let data = readable(DATA + 0x1000, 8 << 20);
            let head = driver.chain(0, &[readable(DATA, 16), data, writable(DATA + 16, 1)]);
            driver.offer(0, head);
            driver.offer(0, head);
            Record::first(driver).set_in_flight(head, 1);
        },
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        let mut driver = abandoned(&rig);
        spoil(&mut driver);
        driver.reconnect(&rig.socket);
        eventually(|| driver.queues[0].error.read().is_ok());
        assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1), "{number}");
        // New memory, as after a reset of the device, and it works.
        driver.stop_queue(0);
        driver.track_inflight(2, SIZE);
        driver.start_queue(0, SIZE, 0);
        assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1), "{number}");
    }
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    let (good, file) = driver.inflight.take().unwrap();
    driver.reconnect(&rig.socket);
    let bytes = u64::from_ne_bytes(good[..8].try_into().unwrap());
    for bad in [
        vec![0; 23],
        body(bytes, 0, 0, SIZE),
        body(bytes, 0, 3, SIZE),
        body(bytes, 0, 2, 0),
        body(bytes, 0, 2, 2048),
        body(2 * SPACING_AS_SAID - 64, 0, 2, SIZE),
        body(bytes, 8, 2, SIZE),
        body(bytes, u64::MAX, 2, SIZE),
        body(bytes - 64, 0, 2, 1024),
    ] {
        assert_eq!(driver.acknowledged(SET_INFLIGHT_FD, &bad, &[file.as_raw_fd()]), 1);
        assert_eq!(driver.acknowledged(SET_INFLIGHT_FD, &bad, &[]), 1);
    }
    assert_eq!(driver.acknowledged(SET_INFLIGHT_FD, &good, &[]), 1);
    assert_eq!(
        driver.acknowledged(SET_INFLIGHT_FD, &good, &[file.as_raw_fd()]),
        0
    );
    assert_eq!(driver.acknowledged(GET_INFLIGHT_FD, &body(0, 0, 3, SIZE), &[]), 1);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
}

#[test]
fn memory_that_is_cut_short_under_us_ends_no_process() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    let (body, sealed) = driver.inflight.take().unwrap();
    assert!(sealed.set_len(0).is_err(), "ours cannot be");
    let theirs = tempfile::tempfile_in("/dev/shm").unwrap();
    theirs.set_len(1 << 20).unwrap();
    driver.inflight = Some((body, theirs.try_clone().unwrap()));
    driver.reconnect(&rig.socket);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    theirs.set_len(0).unwrap();
    offer_get_id(&mut driver, 0);
    driver.kick(0);
    eventually(|| driver.queues[0].error.read().is_ok());
    drop(driver);
    let mut next = Driver::simple(&rig);
    assert_eq!(next.write(0, &[1; 512]), OK);
}

#[test]
fn a_reset_forgets_what_was_in_flight() {
    let rig = Rig::new(Options::default());
    let mut driver = abandoned(&rig);
    rig.barrier.raise(PATIENCE).unwrap();
    let head = offer_get_id(&mut driver, 0);
    Record::first(&driver).set_in_flight(head, 1);
    driver.reconnect(&rig.socket);
    assert_eq!(driver.acknowledged(RESET_DEVICE, &[], &[]), 0);
    rig.barrier.lower();
    driver.start_queue(0, SIZE, 0);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    assert_eq!(driver.used_index(0), 1);
}
