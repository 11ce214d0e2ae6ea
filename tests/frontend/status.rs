//! What the operator is told of a session: what has been set up, and what is wrong.

use std::time::{Duration, Instant};

use sealblk_proto::message::{Command as Order, Outcome, SessionDetail, code};

use crate::driver::*;
use crate::stage::{Served, Stage, eventually};

const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES | FLUSH;

fn troubles(rig: &Rig) -> Vec<String> {
    let troubles = rig.server.detail().troubles;
    troubles.into_iter().map(|trouble| trouble.code).collect()
}

/// Body of SET_VRING_ADDR for queue 0.
fn addresses(start: u64) -> Vec<u8> {
    let mut body = vec![0; 8];
    for offset in [0, 0xa000, 0x8000, 0] {
        body.extend_from_slice(&(start + offset).to_ne_bytes());
    }
    body
}

/// Waits until all messages so far have been dealt with, and what has come of them is posted.
fn settle(driver: &mut Driver) {
    for _ in 0..2 {
        driver.get_u64(GET_QUEUE_NUM);
    }
}

/// As QEMU without `share=on`: it knows the slots for memory, and has nothing to put into them.
#[test]
fn a_guest_whose_memory_is_not_shared_is_refused_and_told_of() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::raw(&rig);
    driver.negotiate(FEATURES);
    let somewhere = addresses(0x1000 + USER_OFFSET);
    assert_eq!(driver.acknowledged(SET_VRING_ADDR, &somewhere, &[]), 1);
    assert_eq!(troubles(&rig), [code::MEMORY_NOT_SHARED]);
    let text = &rig.server.detail().troubles[0].message;
    assert!(
        text.contains("memory is not shared") && text.contains("share=on"),
        "{text}"
    );
    // One that has asked for no acknowledgement would go on as if it were served.
    driver.send(SET_VRING_ADDR, 1, &somewhere, &[]);
    assert!(driver.is_closed());
    eventually("the end", || !rig.server.is_connected());
    assert_eq!(troubles(&rig), [code::MEMORY_NOT_SHARED], "also afterwards");
    let mut driver = Driver::raw(&rig);
    driver.negotiate(FEATURES);
    driver.send_memory_table();
    assert_eq!(driver.acknowledged(SET_VRING_ADDR, &addresses(0x1000), &[]), 1);
    let text = &rig.server.detail().troubles[0].message;
    assert!(text.contains("none of the 3 regions"), "{text}");
    driver.start_queue(0, 128, 0);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    eventually("all is well", || troubles(&rig).is_empty());
}

/// As QEMU with a memory backend without `share=on`: it sends the file, and the guest writes elsewhere.
#[test]
fn a_guest_whose_memory_is_private_is_told_of() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::raw(&rig);
    let other = Driver::raw_memory();
    let own = std::mem::replace(&mut driver.memfds, other);
    driver.negotiate(FEATURES);
    driver.send_memory_table();
    driver.start_queue(0, 128, 0);
    driver.start_queue(1, 128, 0);
    settle(&mut driver);
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    let deadline = Instant::now() + PATIENCE;
    while troubles(&rig).is_empty() {
        assert!(Instant::now() < deadline);
        driver.kick(0);
        std::thread::sleep(Duration::from_millis(1));
    }
    let detail = rig.server.detail();
    assert_eq!(detail.troubles[0].code, code::MEMORY_NOT_SHARED);
    assert_eq!((detail.queues_set_up, detail.queues_running), (2, 2));
    driver.memfds = own;
    driver.send_memory_table();
    assert_eq!(driver.completion(0), (head, 1));
    driver.kick(0);
    eventually("all is well", || troubles(&rig).is_empty());
}

#[test]
fn broken_queues_are_told_of_until_they_are_set_up_anew() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, FEATURES, 2, 128);
    driver.offer(1, 4711);
    driver.kick(1);
    eventually("it is broken", || troubles(&rig) == [code::QUEUE_BROKEN]);
    let text = &rig.server.detail().troubles[0].message;
    assert!(
        text.starts_with("queue 1: ") && text.contains("beyond the table"),
        "{text}"
    );
    driver.stop_queue(1);
    driver.start_queue(1, 128, 0);
    assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1));
    settle(&mut driver);
    assert!(troubles(&rig).is_empty());
}

/// VIRTIO_F_ACCESS_PLATFORM without a vIOMMU changes nothing; with one, the frontend speaks of it, and nothing is done with
/// addresses that nobody has translated.
#[test]
fn a_viommu_is_refused() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, FEATURES | ACCESS_PLATFORM, 1, 128);
    assert_eq!(driver.write(0, &[7; 512]), OK);
    let update = [0x1000u64, 0x1000, USER_OFFSET, 0x0203]
        .map(u64::to_ne_bytes)
        .concat();
    assert_eq!(driver.acknowledged(IOTLB_MSG, &update, &[]), 1);
    assert!(driver.is_closed());
    eventually("the end", || !rig.server.is_connected());
    assert_eq!(troubles(&rig), [code::ADDRESSES_TRANSLATED]);
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    driver.kick(0);
    // Queues that are at a vIOMMU's addresses.
    let mut next = Driver::raw(&rig);
    next.negotiate(FEATURES | ACCESS_PLATFORM);
    next.send_memory_table();
    assert_eq!(next.acknowledged(SET_VRING_ADDR, &addresses(0xffff_0000), &[]), 1);
    assert_eq!(troubles(&rig), [code::ADDRESSES_TRANSLATED]);
    assert_eq!(driver.used_index(0), 1, "nothing was done since");
}

/// What the process tells its KMS: details only if that understands them.
#[test]
fn details_are_told_to_who_understands_them() {
    let stage = Stage::new();
    let mut served = stage.serve();
    let mut driver = Driver::connect(&stage.path("vhost.sock")).running(FEATURES, 1, 128);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    settle(&mut driver);
    let ask = |served: &mut Served| match served.order(Order::Sessions) {
        Outcome::Sessions(mut sessions) => sessions.remove(0).detail,
        other => panic!("{other:?}"),
    };
    served.asked_by_later(false);
    assert_eq!(ask(&mut served), None);
    served.asked_by_later(true);
    let expected = SessionDetail {
        features: ["FLUSH", "VERSION_1"].map(str::to_owned).to_vec(),
        regions: 3,
        memory: 33 << 20,
        queues_set_up: 1,
        queues_running: 1,
        ..SessionDetail::default()
    };
    let detail = ask(&mut served).unwrap();
    assert!(
        detail.protocol_features.contains(&"REPLY_ACK".to_owned()),
        "{detail:?}"
    );
    let protocol_features = Vec::new();
    assert_eq!(
        SessionDetail {
            protocol_features,
            ..detail
        },
        expected
    );
    drop(driver);
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
}
