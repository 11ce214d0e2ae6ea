//! What a frontend can do to the process: nothing that outlasts its connection.

use crate::driver::*;
use proptest::prelude::*;
use sealblk::units::{ByteLen, Capacity};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

fn still_serves(rig: &Rig) {
    let mut driver = Driver::simple(rig);
    assert_eq!(driver.write(5, &[9; 512]), OK);
    assert_eq!(driver.read(5, 512), [9; 512]);
}

#[test]
fn the_next_connection_is_served_at_once() {
    let rig = Rig::new(Options::default());
    for _ in 0..3 {
        still_serves(&rig);
    }
    // One that connects while another is served waits its turn.
    let first = Driver::simple(&rig);
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| Driver::simple(&rig));
        drop(first);
        second.join().unwrap()
    });
    drop(second);
}

#[test]
fn the_configuration_space_honours_offset_and_length() {
    let rig = Rig::new(Options {
        queues: 7,
        ..Options::default()
    });
    let mut driver = Driver::simple(&rig);
    let config = |offset: u32, size: u32| {
        let mut body: Vec<u8> = [offset, size, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        body.resize(12 + size as usize, 0);
        body
    };
    let mut get = |offset: u32, size: u32| {
        driver.send(GET_CONFIG, 1, &config(offset, size), &[]);
        driver.reply().1
    };
    assert_eq!(get(0, 8)[12..], 65536u64.to_le_bytes());
    assert_eq!(get(34, 2)[12..], [7, 0]);
    assert_eq!(get(0, 60).len(), 72);
    let beyond = get(250, 10);
    assert_eq!((beyond.len(), &beyond[4..8]), (12, &[0u8, 0, 0, 0][..]));
    assert_eq!(driver.acknowledged(SET_CONFIG, &config(32, 1), &[]), 1);
    // Without an acknowledgement it is ignored, and the connection lives.
    driver.send(SET_CONFIG, 1, &config(32, 1), &[]);
    assert_eq!(driver.get_u64(GET_QUEUE_NUM), 7);
}

#[test]
fn a_disk_grows_while_it_is_served_and_the_frontend_is_told() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.config(0, 8), 65536u64.to_le_bytes());
    assert!(!rig.server.notify_config_change(), "there is no channel yet");
    assert_eq!(driver.acknowledged(SET_BACKEND_REQ_FD, &[], &[]), 1);
    let no_socket = driver.memfds[0].as_raw_fd();
    assert_eq!(driver.acknowledged(SET_BACKEND_REQ_FD, &[], &[no_socket]), 1);
    let mut ours = driver.open_backend_channel();
    assert_eq!(driver.write(65536, &pattern(1, 4096)), IOERR);
    rig.file.set_len(64 << 20).unwrap();
    rig.disk.grow(Capacity::new(ByteLen(64 << 20)).unwrap());
    assert!(rig.server.notify_config_change());
    let mut message = [0; 12];
    ours.read_exact(&mut message).unwrap();
    // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, version 1, no reply wanted, no body.
    assert_eq!(message[..], [2u32, 1, 0].map(u32::to_ne_bytes).concat());
    assert_eq!(driver.config(0, 8), 131072u64.to_le_bytes());
    assert_eq!(driver.write(65536, &pattern(1, 4096)), OK);
    assert_eq!(driver.read(65536, 4096), pattern(1, 4096));

    drop(driver);
    assert_eq!(ours.read(&mut message).unwrap(), 0, "closed with the connection");
    assert!(!rig.server.notify_config_change());
}

#[test]
fn get_vring_base_drains_and_a_queue_goes_on_where_it_stopped() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let mut done = 0u16;
    for round in 0..20u64 {
        for i in 0..30u64 {
            let base = 0x40_0000 + i * 0x20000;
            driver.header(base, T_OUT, i * 128);
            driver.put(base + 0x1000, &pattern(round * 100 + i, 65536));
            let chain = [
                readable(base, 16),
                readable(base + 0x1000, 65536),
                writable(base + 16, 1),
            ];
            let head = driver.chain(0, &chain);
            driver.offer(0, head);
        }
        driver.kick(0);
        let base = driver.stop_queue(0);
        // Everything that was taken has been completed; what was not taken is untouched.
        assert_eq!(driver.used_index(0), base);
        let taken = base.wrapping_sub(done);
        assert!(taken <= 30);
        done = base;
        driver.start_queue(0, 128, base);
    }
}

#[test]
fn a_disabled_queue_rests() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let enable = |on: u32| [0u32.to_ne_bytes(), on.to_ne_bytes()].concat();
    assert_eq!(driver.acknowledged(SET_VRING_ENABLE, &enable(0), &[]), 0);
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    driver.kick(0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(driver.used_index(0), 0);
    assert_eq!(driver.acknowledged(SET_VRING_ENABLE, &enable(1), &[]), 0);
    assert_eq!(driver.completion(0), (head, 1));
}

#[test]
fn the_guest_is_interrupted_also_through_a_new_call_descriptor() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES, 1, 128);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    let interrupted = |event: &vmm_sys_util::eventfd::EventFd| {
        let deadline = Instant::now() + PATIENCE;
        while event.read().is_err() {
            assert!(Instant::now() < deadline, "no interrupt");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    interrupted(&driver.queues[0].call);
    let call = vmm_sys_util::eventfd::EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    assert_eq!(
        driver.acknowledged(SET_VRING_CALL, &0u64.to_ne_bytes(), &[call.as_raw_fd()]),
        0
    );
    interrupted(&call);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    interrupted(&call);
}

#[test]
fn an_interrupt_comes_where_the_driver_wants_it() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | FLUSH | EVENT_IDX, 1, 128);
    // The one at the start.
    let deadline = Instant::now() + PATIENCE;
    while driver.queues[0].call.read().is_err() {
        assert!(Instant::now() < deadline, "no interrupt at the start");
    }
    driver.set_used_event(0, 2);
    for _ in 0..2 {
        assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(driver.queues[0].call.read().is_err(), "not wanted yet");
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    let deadline = Instant::now() + PATIENCE;
    while driver.queues[0].call.read().is_err() {
        assert!(Instant::now() < deadline, "no interrupt");
    }
}

/// A predecessor was killed between a completion and its interrupt: the driver waits for one at an index that has
/// passed.
#[test]
fn an_interrupt_that_a_predecessor_owed_comes_at_the_start() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::raw(&rig);
    driver.negotiate(VERSION_1 | PROTOCOL_FEATURES | FLUSH | EVENT_IDX);
    driver.send_memory_table();
    driver.start_queue(0, 128, 5);
    driver.set_used_event(0, 3);
    let deadline = Instant::now() + PATIENCE;
    while driver.queues[0].call.read().is_err() {
        assert!(Instant::now() < deadline, "no interrupt");
    }
}

#[test]
fn a_driver_without_protocol_features_has_its_queues_enabled() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, VERSION_1 | FLUSH, 1, 128);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    let enable = [0u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    driver.send(SET_VRING_ENABLE, 1, &enable, &[]);
    assert!(driver.is_closed(), "there is no such message then");
}

#[test]
fn a_reset_stops_the_queues_until_they_are_set_up_anew() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    assert_eq!(driver.acknowledged(RESET_DEVICE, &[], &[]), 0);
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    driver.kick(0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(driver.used_index(0), 1);
    driver.start_queue(0, 128, 0);
    assert_eq!(driver.write(0, &[2; 512]), OK);
}

#[test]
fn memory_regions_come_and_go() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let high = 4 << 30;
    driver.put(high, &[7; 512]);
    assert_eq!(driver.request(0, T_OUT, 0, &[readable(high, 512)]), (OK, 1));
    assert_eq!(driver.acknowledged(REM_MEM_REG, &Driver::region_body(2), &[]), 0);
    assert_eq!(driver.request(0, T_OUT, 0, &[readable(high, 512)]), (IOERR, 1));
    assert_eq!(
        driver.acknowledged(REM_MEM_REG, &Driver::region_body(2), &[]),
        1,
        "it has gone already"
    );
    let fd = driver.memfds[2].as_raw_fd();
    assert_eq!(
        driver.acknowledged(ADD_MEM_REG, &Driver::region_body(2), &[fd]),
        0
    );
    assert_eq!(driver.request(0, T_OUT, 0, &[readable(high, 512)]), (OK, 1));
    assert_eq!(
        driver.acknowledged(ADD_MEM_REG, &Driver::region_body(2), &[fd]),
        1,
        "it overlaps itself"
    );
    // The region that holds the rings: the queue rests, and goes on when it is back.
    assert_eq!(driver.acknowledged(REM_MEM_REG, &Driver::region_body(0), &[]), 0);
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    driver.kick(0);
    let fd = driver.memfds[0].as_raw_fd();
    assert_eq!(
        driver.acknowledged(ADD_MEM_REG, &Driver::region_body(0), &[fd]),
        0
    );
    assert_eq!(driver.completion(0), (head, 1));
}

#[test]
fn only_eventfds_are_taken_for_kick_call_and_error() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let zero = std::fs::File::open("/dev/zero").unwrap();
    for code in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
        assert_eq!(
            driver.acknowledged(code, &1u64.to_ne_bytes(), &[zero.as_raw_fd()]),
            1
        );
        assert_eq!(
            driver.acknowledged(code, &1u64.to_ne_bytes(), &[driver.memfds[0].as_raw_fd()]),
            1
        );
    }
    assert_eq!(driver.write(0, &[1; 512]), OK);
}

#[test]
fn a_second_stop_waits_for_the_first() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    for i in 0..60u64 {
        let base = 0x40_0000 + i * 0x20000;
        driver.header(base, T_OUT, i * 128);
        let head = driver.chain(
            0,
            &[
                readable(base, 16),
                readable(base + 0x1000, 65536),
                writable(base + 16, 1),
            ],
        );
        driver.offer(0, head);
        if i % 20 == 19 {
            driver.kick(0);
        }
        if i == 40 {
            driver.completion(0);
        }
    }
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                rig.server.stop(true).unwrap();
                let used = driver.used_index(0);
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(driver.used_index(0), used, "nothing is completed after a stop");
            });
        }
    });
}

#[test]
fn a_broken_ring_stops_its_queue_only() {
    let rig = Rig::new(Options::default());
    let breakages: [fn(&mut Driver); 3] = [
        // More available than there are entries.
        |driver| driver.set_available_index(0, 500),
        // A head beyond the table.
        |driver| driver.offer(0, 128),
        // A chain that is in flight already: both are taken in one round, and the data is large.
        |driver| {
            driver.header(DATA, T_OUT, 0);
            let data = readable(DATA + 0x1000, 8 << 20);
            let head = driver.chain(0, &[readable(DATA, 16), data, writable(DATA + 16, 1)]);
            driver.offer(0, head);
            driver.offer(0, head);
        },
    ];
    for (number, breakage) in breakages.iter().enumerate() {
        let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES, 2, 128);
        breakage(&mut driver);
        driver.kick(0);
        let deadline = Instant::now() + PATIENCE;
        while driver.queues[0].error.read().is_err() {
            assert!(Instant::now() < deadline, "breakage {number} went unnoticed");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The other queue works, and the broken one does once it is set up anew.
        assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1));
        driver.stop_queue(0);
        driver.start_queue(0, 128, 0);
        assert_eq!(driver.write(1, &[1; 512]), OK);
    }
}

#[test]
fn memory_that_is_cut_short_under_us_ends_no_process_and_leaks_nothing() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(0, &[0x77; 4096]), OK);
    let before = rig.stored(0, 1 << 20);
    // The data of this write is in the third region, which goes away before the request is made.
    let data = 4 << 30;
    driver.header(DATA, T_OUT, 0);
    driver.memfds[2].set_len(0).unwrap();
    let head = driver.chain(
        0,
        &[readable(DATA, 16), readable(data, 4096), writable(DATA + 16, 1)],
    );
    driver.offer(0, head);
    driver.kick(0);
    let deadline = Instant::now() + PATIENCE;
    while driver.queues[0].error.read().is_err() {
        assert!(Instant::now() < deadline, "the loss went unnoticed");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(driver);
    assert_eq!(
        rig.stored(0, 1 << 20),
        before,
        "zeros that nobody wrote must not reach the disk"
    );
    still_serves(&rig);
}

#[test]
fn bad_messages_end_at_most_the_connection() {
    let rig = Rig::new(Options::default());
    let pair = |index: u32, num: u32| [index.to_ne_bytes(), num.to_ne_bytes()].concat();
    let mut cut = Driver::memory_table();
    cut.pop();
    let unaligned = [&pair(0, 0)[..], &1u64.to_ne_bytes(), &[0; 24]].concat();
    let bad: &[(u32, Vec<u8>)] = &[
        (0, vec![]),
        (4711, vec![]),
        (6, vec![0; 16]),
        (SET_FEATURES, u64::MAX.to_ne_bytes().to_vec()),
        (SET_FEATURES, vec![0; 7]),
        (SET_PROTOCOL_FEATURES, (1u64 << 8).to_ne_bytes().to_vec()),
        (SET_MEM_TABLE, cut),
        (SET_MEM_TABLE, Driver::memory_table()),
        (SET_MEM_TABLE, vec![0xff; 8]),
        (SET_VRING_NUM, pair(0, 0)),
        (SET_VRING_NUM, pair(0, 3)),
        (SET_VRING_NUM, pair(0, 2048)),
        (SET_VRING_NUM, pair(2, 128)),
        (SET_VRING_NUM, pair(u32::MAX, 128)),
        (SET_VRING_BASE, pair(0, 65536)),
        (SET_VRING_ADDR, unaligned),
        (SET_VRING_KICK, 0u64.to_ne_bytes().to_vec()),
        (SET_VRING_KICK, (1u64 << 40).to_ne_bytes().to_vec()),
        (SET_VRING_CALL, 255u64.to_ne_bytes().to_vec()),
        (SET_VRING_ENABLE, pair(0, 2)),
        (GET_VRING_BASE, pair(99, 0)),
        (GET_CONFIG, vec![0; 3]),
    ];
    for (code, body) in bad {
        // With an acknowledgement: told, and the connection lives, except where a reply is expected.
        let mut driver = Driver::raw(&rig);
        driver.negotiate(VERSION_1 | PROTOCOL_FEATURES);
        assert_eq!(driver.acknowledged(*code, body, &[]), 1, "{code}");
        assert_eq!(driver.get_u64(GET_QUEUE_NUM), 2);
        drop(driver);
        // Without: the connection ends.
        let mut driver = Driver::raw(&rig);
        driver.negotiate(VERSION_1 | PROTOCOL_FEATURES);
        driver.send(*code, 1, body, &[]);
        assert!(driver.is_closed(), "{code}");
    }
    still_serves(&rig);
}

#[test]
fn rings_outside_of_memory_are_refused() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::raw(&rig);
    driver.negotiate(VERSION_1 | PROTOCOL_FEATURES);
    driver.send_memory_table();
    let pair = |num: u32| [0u32.to_ne_bytes(), num.to_ne_bytes()].concat();
    driver.send(SET_VRING_NUM, 1, &pair(128), &[]);
    let kick = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    driver.send(SET_VRING_KICK, 1, &0u64.to_ne_bytes(), &[kick.as_raw_fd()]);
    driver.send(SET_VRING_ENABLE, 1, &pair(1), &[]);
    for (descriptors, used, available) in [
        (1u64 << 50, 0x1000 + USER_OFFSET, 0x2000 + USER_OFFSET),
        (
            (32 << 20) - 16 + USER_OFFSET,
            0x1000 + USER_OFFSET,
            0x2000 + USER_OFFSET,
        ),
        (
            USER_OFFSET,
            (4 << 30) + (1 << 20) - 4 + USER_OFFSET,
            0x2000 + USER_OFFSET,
        ),
        (USER_OFFSET, 0x1000 + USER_OFFSET, (32 << 20) - 2 + USER_OFFSET),
    ] {
        let mut body = pair(0);
        for address in [descriptors, used, available, 0] {
            body.extend_from_slice(&address.to_ne_bytes());
        }
        assert_eq!(driver.acknowledged(SET_VRING_ADDR, &body, &[]), 1);
    }
    drop(driver);
    still_serves(&rig);
}

#[test]
fn a_stop_is_refused_while_connected_unless_forced() {
    let rig = Rig::new(Options::default());
    let driver = Driver::simple(&rig);
    let deadline = Instant::now() + PATIENCE;
    while !rig.server.is_connected() {
        assert!(Instant::now() < deadline);
    }
    assert!(rig.server.stop(false).is_err());
    rig.server.stop(true).unwrap();
    assert!(!rig.server.is_connected());
    drop(driver);
    rig.server.stop(false).unwrap();
}

#[test]
fn the_barrier_holds_new_requests_and_lets_them_go() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES, 2, 128);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    rig.barrier.raise(PATIENCE).unwrap();
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    driver.kick(0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(driver.used_index(0), 1);
    rig.barrier.lower();
    assert_eq!(driver.completion(0), (head, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Random bodies for every request, after a good beginning, in random order: whatever the frontend says, the
    /// process serves the next one.
    #[test]
    fn random_messages_leave_the_process_alone(
        messages in proptest::collection::vec(
            (0u32..50, prop_oneof![Just(1u32), Just(9)], proptest::collection::vec(any::<u8>(), 0..64), 0usize..3),
            1..40,
        ),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
        running in any::<bool>(),
    ) {
        thread_local! {
            static RIG: Rig = Rig::new(Options { size: 1 << 20, ..Options::default() });
        }
        RIG.with(|rig| {
            let mut driver = if running { Driver::simple(rig) } else { Driver::raw(rig) };
            let fds: Vec<i32> = driver.memfds.iter().map(AsRawFd::as_raw_fd).collect();
            for (code, flags, body, descriptors) in &messages {
                let mut bytes: Vec<u8> =
                    [*code, *flags, body.len() as u32].iter().flat_map(|word| word.to_ne_bytes()).collect();
                bytes.extend_from_slice(body);
                use vmm_sys_util::sock_ctrl_msg::ScmSocket;
                if driver.stream.send_with_fds(&[&bytes[..]], &fds[..*descriptors]).is_err() {
                    break;
                }
            }
            driver.send_bytes(&tail);
            drop(driver);
            still_serves(rig);
        });
    }

    /// Random descriptors: every chain comes back, or the queue is declared broken; never both, never neither.
    #[test]
    fn random_chains_come_back_or_break_the_queue(
        chains in proptest::collection::vec(
            proptest::collection::vec(
                (prop_oneof![Just(DATA), 0u64..0x40_0000, any::<u64>()],
                 prop_oneof![Just(1u32), Just(16), Just(512), 0u32..5000, any::<u32>()],
                 0u16..8),
                1..6),
            1..20),
        kind in 0u32..9,
    ) {
        thread_local! {
            static RIG: Rig = Rig::new(Options { size: 1 << 20, ..Options::default() });
        }
        RIG.with(|rig| {
            let mut driver = Driver::simple(rig);
            driver.header(DATA, kind, 0);
            for chain in &chains {
                let descriptors: Vec<Descriptor> = chain
                    .iter()
                    // Not into the rings themselves: that would be another test's breakage.
                    .map(|(address, len, flags)| Descriptor {
                        address: if *address < 0x20_0000 { address + 0x20_0000 } else { *address },
                        len: *len,
                        flags: *flags,
                    })
                    .collect();
                let head = driver.chain(0, &descriptors);
                driver.offer(0, head);
                driver.kick(0);
                assert_eq!(driver.completion(0).0, head);
            }
            assert_eq!(driver.write(2, &[3; 512]), OK);
        });
    }
}

/// Numbers of the process's threads that serve queues, and of its io_urings.
fn workers_and_rings() -> (Vec<String>, Vec<String>) {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let is_worker = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("queue-"))
    };
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_ring = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|link| link.as_os_str() == "anon_inode:[io_uring]")
    };
    let names = |entries: Vec<std::path::PathBuf>| {
        let mut names: Vec<String> = entries
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    (
        names(
            threads
                .map(|entry| entry.path())
                .filter(|path| is_worker(path))
                .collect(),
        ),
        names(
            files
                .map(|entry| entry.path())
                .filter(|path| is_ring(path))
                .collect(),
        ),
    )
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn queues_that_start_and_stop_need_no_new_threads_rings_or_descriptors() {
    let rig = Rig::new(Options::default());
    let before = workers_and_rings();
    // For each queue one for I/O and one for interrupts, and one for all.
    assert_eq!((before.0.len(), before.1.len()), (2, 5));
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | FLUSH, 2, 128);
    let mut opened = None;
    for round in 0..300u64 {
        for queue in 0..2 {
            assert_eq!(driver.request(queue, T_FLUSH, 0, &[]), (OK, 1));
        }
        match round % 3 {
            0 => driver.send_memory_table(),
            1 => {
                drop(driver);
                driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | FLUSH, 2, 128);
            }
            _ => {
                let base = driver.stop_queue(0);
                driver.start_queue(0, 128, base);
            }
        }
        assert_eq!(driver.write(round, &pattern(round, 512)), OK);
        assert_eq!(driver.read(round, 512), pattern(round, 512));
        if round % 30 == 0 {
            let opened = *opened.get_or_insert_with(descriptors);
            // Those of a session that has just ended are being closed.
            assert!(descriptors() <= opened, "round {round}");
        }
    }
    assert_eq!(workers_and_rings(), before);
}
