//! Workers on a layered store that makes them wait, copy and fail.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use crate::disk::Disk;
use crate::driver::*;
use crate::store::Store;
use crate::store::simulated::SimulatedStore;
use crate::units::{ByteLen, Capacity, Sector};

const CLUSTER: usize = 64 << 10;
const T_WRITE_ZEROES: u32 = 13;
const DISCARD: u64 = 3 << 13;
const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES | FLUSH | DISCARD;

fn store(rig: &Rig) -> &SimulatedStore {
    match rig.disk.store() {
        Store::Simulated(store) => store,
        Store::Raw(_) | Store::Layered(_) => unreachable!(),
    }
}

/// A disk whose beginning, `base` bytes, is in a base.
fn rig(size: u64, base: &[u8]) -> Rig {
    let options = Options {
        size,
        ..Options::default()
    };
    let mut sealed = base.to_vec();
    cipher(size).encrypt_in_place(Sector(0), &mut sealed).unwrap();
    let base = tempfile::tempfile().unwrap();
    base.write_all_at(&sealed, 0).unwrap();
    let own = tempfile::tempfile().unwrap();
    let file = own.try_clone().unwrap();
    let disk = Disk::new(
        Capacity::new(ByteLen(size)).unwrap(),
        false,
        SERIAL,
        Some(cipher(size.next_multiple_of(CLUSTER as u64))),
        Store::Simulated(SimulatedStore::new(own, base)),
    );
    Rig::serve(options, disk, file, tempfile::tempdir().unwrap())
}

/// A request of which several can be in flight at once.
#[derive(Clone, Debug)]
struct Op {
    kind: u32,
    sector: u64,
    count: u64,
    seed: u64,
}

impl Op {
    fn sectors(&self) -> std::ops::Range<usize> {
        self.sector as usize..(self.sector + self.count) as usize
    }

    fn data(&self) -> Vec<u8> {
        pattern(self.seed, self.count as usize * 512)
    }

    fn apply(&self, model: &mut [u8]) {
        let sectors = self.sectors();
        match self.kind {
            T_OUT => model[sectors.start * 512..sectors.end * 512].copy_from_slice(&self.data()),
            T_WRITE_ZEROES => model[sectors.start * 512..sectors.end * 512].fill(0),
            T_DISCARD => {
                let (start, end) = (sectors.start.next_multiple_of(8), sectors.end - sectors.end % 8);
                if start < end {
                    model[start * 512..end * 512].fill(0);
                }
            }
            _ => {}
        }
    }
}

const HEADERS_AT: u64 = 0x10_0000;
const STATUSES_AT: u64 = 0x11_0000;

/// Offers all of them at once and returns their statuses; what was read must be what `model` has.
fn run(driver: &mut Driver, queue: usize, ops: &[Op], model: &[u8]) -> Vec<u8> {
    let mut data_at = DATA;
    let mut places = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let header = HEADERS_AT + index as u64 * 32;
        let status = STATUSES_AT + index as u64;
        driver.put(status, &[NO_STATUS]);
        driver.header(header, op.kind, if op.kind <= T_OUT { op.sector } else { 0 });
        let len = op.count as usize * 512;
        let data = match op.kind {
            T_IN => {
                driver.put(data_at, &vec![0xcd; len]);
                writable(data_at, len as u32)
            }
            T_OUT => {
                driver.put(data_at, &op.data());
                readable(data_at, len as u32)
            }
            _ => {
                let segment = [&op.sector.to_le_bytes()[..], &op.count.to_le_bytes()].concat();
                driver.put(data_at, &segment);
                readable(data_at, 16)
            }
        };
        places.push(data_at);
        data_at += len.max(16) as u64;
        let chain = [readable(header, 16), data, writable(status, 1)];
        let head = driver.chain(queue, &chain);
        driver.offer(queue, head);
    }
    driver.kick(queue);
    for _ in ops {
        driver.completion(queue);
    }
    for (op, at) in ops.iter().zip(&places) {
        if op.kind == T_IN {
            let sectors = op.sectors();
            let expected = &model[sectors.start * 512..sectors.end * 512];
            assert!(driver.get(*at, expected.len()) == expected, "{op:?}");
        }
    }
    driver.get(STATUSES_AT, ops.len())
}

fn write(sector: u64, count: u64, seed: u64) -> Op {
    Op {
        kind: T_OUT,
        sector,
        count,
        seed,
    }
}

fn read(sector: u64, count: u64) -> Op {
    Op {
        kind: T_IN,
        sector,
        count,
        seed: 0,
    }
}

/// A size that ends within a block.
const SIZE: usize = 8 * CLUSTER + 3 * 512;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let kind =
        prop_oneof![3 => Just(T_OUT), 2 => Just(T_IN), 1 => Just(T_DISCARD), 1 => Just(T_WRITE_ZEROES)];
    let sectors = SIZE as u64 / 512;
    let op = (kind, 0..sectors, prop_oneof![1u64..20, 1u64..300], any::<u64>());
    proptest::collection::vec(op, 1..24).prop_map(move |ops| {
        // Those in flight at once must not overlap, for no order is promised.
        let mut taken = vec![false; sectors as usize];
        let mut disjoint = Vec::new();
        for (kind, sector, count, seed) in ops {
            let count = count.min(sectors - sector);
            let range = sector as usize..(sector + count) as usize;
            if !taken[range.clone()].contains(&true) {
                taken[range].fill(true);
                disjoint.push(Op {
                    kind,
                    sector,
                    count,
                    seed,
                });
            }
        }
        disjoint
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Against a plain array: whatever is in flight at once, what was written is read.
    #[test]
    fn a_layered_disk_is_as_an_array(
        rounds in proptest::collection::vec((ops(), any::<bool>()), 1..12),
        later_one_in in proptest::option::of(2u32..9),
    ) {
        let base = pattern(77, 3 * CLUSTER);
        let rig = rig(SIZE as u64, &base);
        let mut model = base;
        model.resize(SIZE, 0);
        store(&rig).state().later_one_in = later_one_in;
        let mut driver = Driver::new(&rig, FEATURES, 1, 128);
        for (ops, snapshot) in rounds {
            let statuses = run(&mut driver, 0, &ops, &model);
            prop_assert!(statuses.iter().all(|status| *status == OK), "{statuses:?}");
            for op in &ops {
                op.apply(&mut model);
            }
            let all = [read(0, 700), read(700, SIZE as u64 / 512 - 700)];
            run(&mut driver, 0, &all, &model);
            prop_assert!(store(&rig).is_at_rest());
            if snapshot {
                store(&rig).snapshot();
            }
        }
    }
}

#[test]
fn writes_to_one_cluster_wait_for_each_other_on_all_queues() {
    let rig = rig(1 << 20, &[]);
    let mut driver = Driver::new(&rig, FEATURES, 2, 128);
    let mut model = vec![0; 1 << 20];
    let mut offered = Vec::new();
    for sector in 0..60u64 {
        let queue = (sector % 2) as usize;
        let (header, status, data) = (
            HEADERS_AT + sector * 32,
            STATUSES_AT + sector,
            DATA + sector * 512,
        );
        let op = write(sector, 1, sector + 1);
        driver.header(header, T_OUT, sector);
        driver.put(data, &op.data());
        let head = driver.chain(
            queue,
            &[readable(header, 16), readable(data, 512), writable(status, 1)],
        );
        driver.offer(queue, head);
        offered.push(queue);
        op.apply(&mut model);
    }
    driver.kick(0);
    driver.kick(1);
    for queue in offered {
        driver.completion(queue);
    }
    assert_eq!(driver.get(STATUSES_AT, 60), [OK; 60]);
    run(&mut driver, 0, &[read(0, 128)], &model);
    assert!(store(&rig).is_at_rest());
}

#[test]
fn a_request_of_many_changes_fits_into_the_buffers_and_is_committed_in_batches() {
    let rig = rig(16 << 20, &pattern(5, 8 << 20));
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    // Misaligned, so that every change at the edges has two sources besides its span.
    let data = pattern(6, 9 << 20);
    assert_eq!(driver.write(3, &data), OK);
    assert_eq!(driver.read(3, data.len()), data);
    assert_eq!(driver.read(0, 1536), pattern(5, 1536));
    assert!(store(&rig).state().most_in_a_commit > 1);
    assert!(store(&rig).is_at_rest());
}

#[test]
fn a_commit_that_fails_fails_its_requests_and_nothing_stays_taken() {
    let rig = rig(1 << 20, &pattern(8, CLUSTER));
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    store(&rig).state().commits_fail = true;
    let mut model = pattern(8, CLUSTER);
    model.resize(1 << 20, 0);
    let ops = [write(1, 2, 1), write(200, 7, 2), write(400, 300, 3), read(0, 8)];
    assert_eq!(run(&mut driver, 0, &ops, &model), [IOERR, IOERR, IOERR, OK]);
    assert!(store(&rig).is_at_rest());
    store(&rig).state().commits_fail = false;
    assert_eq!(run(&mut driver, 0, &ops, &model), [OK; 4]);
}

#[test]
fn a_full_store_is_an_error_to_the_writes_that_need_room() {
    let rig = rig(1 << 20, &[]);
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    store(&rig).state().room = 1;
    let mut model = vec![0; 1 << 20];
    write(0, 8, 1).apply(&mut model);
    assert_eq!(
        run(&mut driver, 0, &[write(0, 8, 1), write(120, 16, 2)], &model),
        [OK, IOERR]
    );
    assert_eq!(
        run(&mut driver, 0, &[write(0, 8, 1), read(0, 8)], &model),
        [OK, OK]
    );
    assert!(store(&rig).is_at_rest());
}

#[test]
fn writes_without_room_are_held_until_there_is() {
    let rig = rig(1 << 20, &[]);
    rig.disk.room().set_holds(true);
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    store(&rig).state().room = 1;
    let mut model = vec![0; 1 << 20];
    let ops = [write(0, 8, 1), write(120, 16, 2), write(400, 300, 3)];
    ops.iter().for_each(|op| op.apply(&mut model));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Nothing is under way while they are held, so that the queue can rest.
            while rig.disk.room().held() != 2 || !store(&rig).is_at_rest() {
                std::thread::yield_now();
            }
            assert!(rig.disk.room().is_short());
            store(&rig).state().room = u32::MAX;
        });
        assert_eq!(run(&mut driver, 0, &ops, &model), [OK; 3]);
    });
    assert_eq!(rig.disk.room().held(), 0);
    let reads = [read(0, 512), read(512, 512)];
    assert_eq!(run(&mut driver, 0, &reads, &model), [OK; 2]);
    assert!(store(&rig).is_at_rest() && !rig.disk.room().is_short());
}

#[test]
fn a_source_that_cannot_be_read_fails_the_write_and_leaves_the_rest() {
    let whole = pattern(9, 2 * CLUSTER);
    let rig = rig(1 << 20, &whole);
    let base = rig.disk.store().file(crate::store::Slot(1)).try_clone_to_owned();
    std::fs::File::from(base.unwrap())
        .set_len(CLUSTER as u64 + 8 * 4096)
        .unwrap();
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    let mut model = whole;
    model.resize(1 << 20, 0);
    assert_eq!(
        run(&mut driver, 0, &[write(129, 1, 4), read(128, 8)], &model),
        [IOERR, OK]
    );
    assert!(store(&rig).is_at_rest());
    assert_eq!(run(&mut driver, 0, &[write(1, 1, 4)], &model), [OK]);
}

#[test]
fn a_flush_marks_what_has_changed_and_only_that() {
    let rig = rig(1 << 20, &[]);
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    assert_eq!(driver.write(0, &pattern(1, 4096)), OK);
    assert!(!store(&rig).is_durable());
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    assert!(store(&rig).is_durable());
    store(&rig).state().marks_fail = true;
    assert_eq!(driver.write(0, &pattern(2, 4096)), OK);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1), "nothing to mark");
    assert_eq!(store(&rig).state().flushes, 2);
    assert_eq!(driver.write(8, &pattern(2, 4096)), OK);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (IOERR, 1));
    assert!(rig.disk.is_poisoned());
    assert_eq!(driver.write(8, &pattern(2, 4096)), IOERR);
}

#[test]
fn without_flush_every_answer_comes_after_one() {
    let rig = rig(1 << 20, &[]);
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | DISCARD, 1, 128);
    let model = vec![0; 1 << 20];
    for ops in [
        vec![write(0, 8, 1), write(1000, 300, 2)],
        vec![write(0, 8, 3)],
        vec![Op {
            kind: T_DISCARD,
            sector: 0,
            count: 8,
            seed: 0,
        }],
    ] {
        let before = store(&rig).state().flushes;
        let statuses = run(&mut driver, 0, &ops, &model);
        assert!(statuses.iter().all(|status| *status == OK));
        assert!(store(&rig).is_durable());
        assert!(store(&rig).state().flushes > before);
    }
}

#[test]
fn what_waits_is_done_before_a_queue_stops() {
    let rig = rig(1 << 20, &[]);
    let mut driver = Driver::new(&rig, FEATURES, 1, 128);
    store(&rig).state().later_one_in = Some(2);
    let mut base = 0;
    let mut round = 0;
    while round < 20 || base == 0 {
        round += 1;
        assert!(round < 500, "none was ever taken");
        store(&rig).snapshot();
        driver.header(HEADERS_AT, T_OUT, 1);
        let chain = [
            readable(HEADERS_AT, 16),
            readable(DATA, 200 << 10),
            writable(STATUSES_AT, 1),
        ];
        let head = driver.chain(0, &chain);
        driver.offer(0, head);
        driver.kick(0);
        // More time in each round to take it.
        std::thread::sleep(std::time::Duration::from_micros(100 * round));
        // Taken or not: what was taken is answered when the queue has stopped.
        base = driver.stop_queue(0);
        assert_eq!(driver.used_index(0), base);
        assert!(store(&rig).is_at_rest());
        driver.start_queue(0, 128, base);
    }
}

/// Two segments, of a sector each, or 64.
fn discard(driver: &mut Driver, segments: u32) -> u8 {
    driver.put(DATA, &vec![0; segments as usize * 16]);
    driver
        .request(0, T_DISCARD, 0, &[readable(DATA, segments * 16)])
        .0
}

/// A driver that has read the configuration here knows that there is one segment. One that was there before may have read
/// another, of an earlier version.
#[test]
fn more_segments_than_are_offered_are_taken_of_a_driver_that_may_have_been_told_so() {
    let rig = rig(1 << 20, &[]);
    let mut driver = Driver::raw(&rig);
    driver.negotiate(FEATURES);
    assert_eq!(driver.config(40, 4), 1u32.to_le_bytes());
    assert_eq!(driver.config(52, 4), 1u32.to_le_bytes());
    let mut driver = driver.running(FEATURES, 1, 128);
    assert_eq!((discard(&mut driver, 1), discard(&mut driver, 2)), (OK, UNSUPP));
    // It comes back, as after the end of a process; and looks whether the disk has grown.
    driver.stream.shutdown(std::net::Shutdown::Both).unwrap();
    driver.reconnect(&rig.socket);
    for _ in 0..2 {
        assert_eq!((discard(&mut driver, 64), discard(&mut driver, 65)), (OK, UNSUPP));
        driver.config(0, 60);
        driver.stop_queue(0);
        driver.start_queue(0, 128, 0);
    }
}
