//! What a guest's requests do, good ones and bad ones.

use std::time::Duration;

use crate::driver::*;

#[test]
fn data_is_ciphertext_in_the_store_and_comes_back() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let data = pattern(1, 64 * 1024);
    assert_eq!(driver.write(1000, &data), OK);
    let mut expected = data.clone();
    cipher(32 << 20)
        .encrypt_in_place(sealblk::units::Sector(1000), &mut expected)
        .unwrap();
    assert_eq!(rig.stored(1000, data.len()), expected);
    assert_eq!(driver.read(1000, data.len()), data);
    assert_eq!(driver.read(1004, 512), data[2048..2560]);
    let counters = rig.disk.counters();
    assert_eq!(
        counters.bytes_written.load(std::sync::atomic::Ordering::Relaxed),
        64 * 1024
    );
    assert_eq!(counters.reads.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn a_plain_disk_stores_what_it_is_given() {
    let rig = Rig::new(Options {
        encrypted: false,
        ..Options::default()
    });
    let mut driver = Driver::simple(&rig);
    let data = pattern(2, 4096);
    assert_eq!(driver.write(8, &data), OK);
    assert_eq!(rig.stored(8, 4096), data);
    assert_eq!(driver.read(8, 4096), data);
}

#[test]
fn requests_larger_than_all_buffers_are_done_in_parts() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let data = pattern(3, 9 << 20);
    assert_eq!(driver.write(1, &data), OK);
    assert_eq!(driver.read(1, data.len()), data);
}

/// Whether a queue finds its work by looking, or sleeps and is woken.
#[test]
fn a_queue_that_looks_for_work_misses_none() {
    let rig = Rig::new(Options {
        poll: Duration::from_millis(1),
        ..Options::default()
    });
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | EVENT_IDX | FLUSH, 1, 128);
    for number in 0..300 {
        let data = pattern(number, 4096);
        assert_eq!(driver.write(number % 8 * 8, &data), OK);
        if number % 50 == 0 {
            // Longer than it looks.
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(driver.read(number % 8 * 8, 4096), data);
    }
}

#[test]
fn buffers_may_be_split_at_any_byte_and_across_regions() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let data = pattern(4, 1024);
    // Across the border of two regions, and in a third one.
    let places = [(16 << 20) - 100, (4 << 30) + 77];
    for cut in [1, 15, 16, 17, 200, 511, 512, 513, 1023] {
        driver.put(places[0], &data[..cut]);
        driver.put(places[1], &data[cut..]);
        let pieces = [(places[0], cut), (places[1], 1024 - cut)];
        let out: Vec<_> = pieces
            .iter()
            .map(|(at, len)| readable(*at, *len as u32))
            .collect();
        assert_eq!(driver.request(0, T_OUT, 7, &out), (OK, 1), "{cut}");
        driver.put(places[0], &vec![0; cut]);
        driver.put(places[1], &vec![0; 1024 - cut]);
        let into: Vec<_> = pieces
            .iter()
            .map(|(at, len)| writable(*at, *len as u32))
            .collect();
        assert_eq!(driver.request(0, T_IN, 7, &into), (OK, 1025), "{cut}");
        let back = [driver.get(places[0], cut), driver.get(places[1], 1024 - cut)].concat();
        assert_eq!(back, data, "{cut}");
    }
}

#[test]
fn header_data_and_status_may_share_descriptors() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let data = pattern(5, 512);
    driver.header(DATA, T_OUT, 3);
    driver.put(DATA + 16, &data);
    // The header in three pieces, the last of which runs into the data.
    let status = DATA + 0x2000;
    let chain = [
        readable(DATA, 1),
        readable(DATA + 1, 0),
        readable(DATA + 1, 6),
        readable(DATA + 7, 9 + 512),
        writable(status, 1),
    ];
    let head = driver.chain(0, &chain);
    driver.offer(0, head);
    driver.kick(0);
    assert_eq!(driver.completion(0), (head, 1));
    assert_eq!(driver.get(status, 1), [OK]);
    // Data and status in one descriptor.
    driver.header(DATA, T_IN, 3);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 0x1000, 513)]);
    driver.offer(0, head);
    driver.kick(0);
    assert_eq!(driver.completion(0), (head, 513));
    assert_eq!(driver.get(DATA + 0x1000, 512), data);
    assert_eq!(driver.get(DATA + 0x1200, 1), [OK]);
}

#[test]
fn indirect_tables_are_followed() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let data = pattern(6, 126 * 512);
    driver.put(DATA, &data);
    let table = 0x18_0000;
    for (kind, flags) in [(T_OUT, 0), (T_IN, WRITE)] {
        driver.header(table + 0x4000, kind, 9);
        driver.write_descriptor(
            table,
            0,
            Descriptor {
                flags: NEXT,
                ..readable(table + 0x4000, 16)
            },
            1,
        );
        for slot in 1..=126u16 {
            let at = DATA + u64::from(slot - 1) * 512;
            let descriptor = Descriptor {
                address: at,
                len: 512,
                flags: flags | NEXT,
            };
            driver.write_descriptor(table, slot, descriptor, slot + 1);
        }
        driver.write_descriptor(table, 127, writable(table + 0x4010, 1), 0);
        let head = driver.chain(
            0,
            &[Descriptor {
                address: table,
                len: 128 * 16,
                flags: INDIRECT,
            }],
        );
        driver.offer(0, head);
        driver.kick(0);
        let expected = if kind == T_IN { data.len() as u32 + 1 } else { 1 };
        assert_eq!(driver.completion(0), (head, expected));
        assert_eq!(driver.get(table + 0x4010, 1), [OK]);
        if kind == T_OUT {
            driver.put(DATA, &vec![0; data.len()]);
        }
    }
    assert_eq!(driver.get(DATA, data.len()), data);
}

/// A chain that is longer than any that obeys `seg_max`: refused in its status, as long as it is no longer than a queue can be.
#[test]
fn chains_that_are_too_long_are_refused_in_their_status() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let table = 0x18_0000;
    let status = table + 0x8000;
    for (count, answered) in [(256u16, OK), (257, IOERR), (1024, IOERR), (1025, NO_STATUS)] {
        driver.header(status + 16, T_IN, 0);
        driver.put(status, &[NO_STATUS]);
        let mut chain = vec![writable(DATA, 512); count.into()];
        chain[0] = readable(status + 16, 16);
        chain[usize::from(count) - 1] = writable(status, 1);
        driver.write_chain(table, 0, &chain);
        let indirect = Descriptor {
            address: table,
            len: u32::from(count) * 16,
            flags: INDIRECT,
        };
        let head = driver.chain(0, &[indirect]);
        driver.offer(0, head);
        driver.kick(0);
        let used = match answered {
            OK => 254 * 512 + 1,
            IOERR => 1,
            _ => 0,
        };
        assert_eq!(driver.completion(0), (head, used), "{count}");
        assert_eq!(driver.get(status, 1), [answered], "{count}");
    }
    assert_eq!(driver.write(0, &[7; 512]), OK);
}

#[test]
fn get_id_fits_any_buffer() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    for len in [0usize, 1, 5, 19, 20, 21, 4096] {
        driver.put(DATA, &[0xff; 64]);
        let written = len.min(20);
        let (status, used_len) = driver.request(0, T_GET_ID, 0, &[writable(DATA, len as u32)]);
        assert_eq!((status, used_len), (OK, written as u32 + 1), "{len}");
        assert_eq!(driver.get(DATA, written), SERIAL.as_bytes()[..written]);
        assert_eq!(driver.get(DATA + written as u64, 8), [0xff; 8]);
    }
}

#[test]
fn flush_works_and_other_types_are_unsupported() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    for kind in [2, 3, 5, 7, 9, T_DISCARD, 13, u32::MAX] {
        assert_eq!(driver.request(0, kind, 0, &[]), (UNSUPP, 1), "{kind}");
    }
    assert_eq!(driver.write(0, &[1; 512]), OK);
}

#[test]
fn wrong_requests_are_answered_with_an_error_and_change_nothing() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let last = (32 << 20) / 512 - 1;
    assert_eq!(driver.write(last, &pattern(7, 512)), OK);
    let before = rig.stored(0, 32 << 20);
    for (kind, sector, data) in [
        // Beyond the end, also by overflow.
        (T_OUT, last, readable(DATA, 1024)),
        (T_OUT, last + 1, readable(DATA, 512)),
        (T_OUT, u64::MAX, readable(DATA, 512)),
        (T_OUT, 1 << 55, readable(DATA, 512)),
        (T_IN, u64::MAX - 1, writable(DATA, 1024)),
        // Not whole sectors.
        (T_OUT, 0, readable(DATA, 511)),
        (T_OUT, 0, readable(DATA, 1)),
        (T_IN, 0, writable(DATA, 513)),
        // In the wrong direction.
        (T_OUT, 0, writable(DATA, 512)),
        (T_IN, 0, readable(DATA, 512)),
        // Outside of memory.
        (T_OUT, 0, readable(1 << 40, 512)),
        (T_OUT, 0, readable((32 << 20) - 256, 512)),
        (T_OUT, 0, readable(u64::MAX - 100, 512)),
        (T_IN, 0, writable((4 << 30) - 1, 512)),
    ] {
        assert_eq!(
            driver.request(0, kind, sector, &[data]),
            (IOERR, 1),
            "{kind} {sector} {data:?}"
        );
    }
    assert_eq!(rig.stored(0, 32 << 20), before);
    assert_eq!(driver.read(last, 512), pattern(7, 512));
}

#[test]
fn chains_without_room_for_an_answer_come_back_empty_and_the_queue_goes_on() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    driver.header(DATA, T_OUT, 0);
    let table = 0x1000;
    let no_status: [&[Descriptor]; 5] = [
        &[readable(DATA, 16)],
        &[readable(DATA, 16), readable(DATA, 512)],
        &[readable(DATA, 16), writable(DATA, 0)],
        &[readable(DATA, 16), writable(1 << 40, 1)],
        // Readable after writable.
        &[writable(DATA, 1), readable(DATA, 16)],
    ];
    for descriptors in no_status {
        let head = driver.chain(0, descriptors);
        driver.offer(0, head);
        driver.kick(0);
        assert_eq!(driver.completion(0), (head, 0), "{descriptors:?}");
    }
    // A loop, a successor beyond the table, and an indirect table of odd length or out of memory.
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA, 1)]);
    driver.write_descriptor(
        table,
        head,
        Descriptor {
            flags: NEXT,
            ..readable(DATA, 16)
        },
        head,
    );
    driver.offer(0, head);
    driver.kick(0);
    assert_eq!(driver.completion(0), (head, 0));
    driver.write_descriptor(
        table,
        head,
        Descriptor {
            flags: NEXT,
            ..readable(DATA, 16)
        },
        128,
    );
    driver.offer(0, head);
    driver.kick(0);
    assert_eq!(driver.completion(0), (head, 0));
    for (address, len) in [(DATA, 17), (DATA, 0), (1 << 40, 32), (u64::MAX - 4, 32)] {
        driver.write_descriptor(
            table,
            head,
            Descriptor {
                address,
                len,
                flags: INDIRECT,
            },
            0,
        );
        driver.offer(0, head);
        driver.kick(0);
        assert_eq!(driver.completion(0), (head, 0));
    }
    assert_eq!(driver.write(0, &[7; 512]), OK);
    assert_eq!(driver.read(0, 512), [7; 512]);
}

#[test]
fn a_read_only_disk_is_offered_as_such_and_refuses_writes() {
    let rig = Rig::new(Options {
        read_only: true,
        ..Options::default()
    });
    let mut driver = Driver::raw(&rig);
    assert_eq!(driver.get_u64(GET_FEATURES) >> 5 & 1, 1);
    drop(driver);
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(0, &[1; 512]), IOERR);
    assert_eq!(rig.stored(0, 512), [0; 512]);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    driver.read(0, 512);
}

#[test]
fn a_store_that_fails_is_an_error_to_the_guest_and_nothing_more() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    // Somebody cuts the file short.
    rig.file.set_len(4096).unwrap();
    let (status, used_len) = driver.request(0, T_IN, 100, &[writable(DATA, 4096)]);
    assert_eq!((status, used_len), (IOERR, 1));
    assert_eq!(driver.read(0, 4096).len(), 4096);
}

#[test]
fn a_failed_sync_poisons_the_disk() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    rig.disk.poison(&std::io::Error::other("EIO"));
    assert_eq!(driver.write(0, &[2; 512]), IOERR);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (IOERR, 1));
    assert_eq!(driver.request(0, T_IN, 0, &[writable(DATA, 512)]), (IOERR, 1));
    assert_eq!(driver.request(0, T_GET_ID, 0, &[writable(DATA, 20)]), (OK, 21));
}

#[test]
fn many_requests_are_in_flight_at_once_on_all_queues() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | EVENT_IDX, 2, 1024);
    let slots = 300u64;
    for queue in 0..2usize {
        for i in 0..slots {
            let base = 0x40_0000 + (queue as u64 * slots + i) * 0x2000;
            driver.header(base, T_OUT, (queue as u64 * slots + i) * 8);
            driver.put(base + 0x1000, &pattern(queue as u64 * slots + i, 4096));
            let chain = [
                readable(base, 16),
                readable(base + 0x1000, 4096),
                writable(base + 16, 1),
            ];
            let head = driver.chain(queue, &chain);
            driver.offer(queue, head);
        }
        driver.kick(queue);
    }
    for queue in 0..2usize {
        let mut heads = std::collections::BTreeSet::new();
        for _ in 0..slots {
            let (head, len) = driver.completion(queue);
            assert_eq!(len, 1);
            assert!(heads.insert(head), "{head} came twice");
        }
    }
    for i in 0..2 * slots {
        assert_eq!(driver.read(i * 8, 4096), pattern(i, 4096));
    }
}

#[test]
fn a_request_with_one_bad_buffer_moves_nothing() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    let good = 4 << 20;
    driver.put(DATA, &vec![0x11; good]);
    let bad = |flags| Descriptor {
        address: 1 << 40,
        len: 4 << 20,
        flags,
    };
    assert_eq!(
        driver.request(0, T_OUT, 0, &[readable(DATA, good as u32), bad(0)]),
        (IOERR, 1)
    );
    assert_eq!(rig.stored(0, 4096), [0; 4096]);
    assert_eq!(
        driver.request(0, T_IN, 0, &[writable(DATA, good as u32), bad(WRITE)]),
        (IOERR, 1)
    );
    assert_eq!(driver.get(DATA, 4096), [0x11; 4096]);
}

#[test]
fn a_write_that_cannot_be_answered_is_not_done() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    driver.header(DATA, T_OUT, 0);
    driver.put(DATA + 0x1000, &[0x22; 512]);
    let mut offered = |descriptors: &[Descriptor], last_flags: u16, last_next: u16| {
        let head = driver.chain(0, descriptors);
        let last = head + descriptors.len() as u16 - 1;
        let descriptor = *descriptors.last().unwrap();
        let flags = descriptor.flags | last_flags;
        driver.write_descriptor(0x1000, last, Descriptor { flags, ..descriptor }, last_next);
        driver.offer(0, head);
        driver.kick(0);
        assert_eq!(driver.completion(0), (head, 0));
    };
    let (header, data) = (readable(DATA, 16), readable(DATA + 0x1000, 512));
    // The status is not in memory.
    offered(&[header, data, writable(1 << 40, 1)], 0, 0);
    // The chain goes on beyond the table.
    offered(&[header, data, writable(DATA + 16, 1)], NEXT, 128);
    assert_eq!(rig.stored(0, 512), [0; 512]);
    assert_eq!(driver.write(0, &[0x33; 512]), OK);
}

#[test]
fn chains_and_requests_have_a_limit() {
    let rig = Rig::new(Options {
        size: 64 << 20,
        ..Options::default()
    });
    let mut driver = Driver::new(&rig, VERSION_1 | PROTOCOL_FEATURES | FLUSH, 1, 1024);
    for (data_descriptors, status) in [(254usize, OK), (255, IOERR)] {
        driver.header(DATA, T_OUT, 0);
        let mut chain = vec![readable(DATA, 16)];
        chain.extend(vec![readable(DATA + 0x1000, 512); data_descriptors]);
        chain.push(writable(DATA + 16, 1));
        let head = driver.chain(0, &chain);
        driver.offer(0, head);
        driver.kick(0);
        assert_eq!(driver.completion(0), (head, 1), "{data_descriptors}");
        assert_eq!(driver.get(DATA + 16, 1), [status], "{data_descriptors}");
    }
    // The same memory again and again.
    let eight = readable(DATA, 8 << 20);
    assert_eq!(driver.request(0, T_OUT, 0, &[eight; 4]), (OK, 1));
    assert_eq!(
        driver.request(0, T_OUT, 0, &[eight, eight, eight, eight, readable(DATA, 512)]),
        (IOERR, 1)
    );
}

#[test]
fn more_than_may_wait_is_left_in_the_ring_and_done_later() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::simple(&rig);
    driver.put(DATA, &vec![0x44; 8 << 20]);
    let heads: Vec<u16> = (0..20u64)
        .map(|i| {
            let header = 0x10_0000 + i * 32;
            driver.header(header, T_OUT, 0);
            let head = driver.chain(
                0,
                &[
                    readable(header, 16),
                    readable(DATA, 8 << 20),
                    writable(header + 16, 1),
                ],
            );
            driver.offer(0, head);
            head
        })
        .collect();
    driver.kick(0);
    let mut completed: Vec<u16> = (0..20).map(|_| driver.completion(0).0).collect();
    completed.sort_unstable();
    assert_eq!(completed, heads);
    assert_eq!(driver.read(0, 4096), [0x44; 4096]);
}
