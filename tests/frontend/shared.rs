//! Several frontends on one disk, each with a session of its own (rule D09).

use std::io::Read;
use std::time::Duration;

use sealblk_proto::message::{AttachmentConfig, Change, Command as Order, Outcome, StoreKind, code};

use crate::driver::{Driver, FLUSH, GET_FEATURES, IOERR, OK, PROTOCOL_FEATURES, T_FLUSH, VERSION_1, pattern};
use crate::load::{DISK_BYTES, Load};
use crate::reconnect::seed;
use crate::stage::{ATTACHMENT, SIZE, Served, Stage, eventually};

const OTHER: &str = "att-other";
const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES | FLUSH;
const READ_ONLY: u64 = 1 << 5;

fn shared(kind: StoreKind, size: u64) -> Stage {
    let mut stage = Stage::of(kind, size);
    stage.shared = true;
    stage
}

fn connect(stage: &Stage, socket: &str) -> Driver {
    Driver::connect(&stage.path(socket)).running(FEATURES, 1, 128)
}

fn flush(driver: &mut Driver) {
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]).0, OK);
}

fn remove(served: &mut Served, attachment: &str, force: bool) -> Outcome {
    let attachment = attachment.to_owned();
    served.order(Order::RemoveSession { attachment, force })
}

fn assert_failed(outcome: &Outcome, code: &str) {
    match outcome {
        Outcome::Failed(failure) => assert_eq!(failure.code, code),
        other => panic!("{other:?}"),
    }
}

fn end(mut served: Served) {
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    let (status, log) = served.exit();
    assert_eq!(status, Some(0), "{log}");
}

fn one_sees_what_the_other_wrote(kind: StoreKind) {
    let stage = shared(kind, SIZE);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let (mut one, mut other) = (connect(&stage, "vhost.sock"), connect(&stage, OTHER));
    for round in 0..8u64 {
        let sector = 8 * round + 3;
        assert_eq!(one.write(sector, &pattern(round, 6144)), OK);
        flush(&mut one);
        assert_eq!(other.read(sector, 6144), pattern(round, 6144));
        // Into the middle of what the first has written, and both see it.
        assert_eq!(other.write(sector + 1, &[round as u8; 512]), OK);
        assert_eq!(one.read(sector + 1, 512), [round as u8; 512]);
    }
    let stats = served.stats();
    assert!(stats.frontend_connected);
    assert_eq!((stats.writes, stats.reads, stats.flushes), (16, 16, 8));
    end(served);
    assert!(one.is_closed() && other.is_closed());
}

#[test]
fn one_sees_what_the_other_wrote_on_a_raw_store() {
    one_sees_what_the_other_wrote(StoreKind::Raw);
}

#[test]
fn one_sees_what_the_other_wrote_on_a_layered_store() {
    one_sees_what_the_other_wrote(StoreKind::Layered);
}

#[test]
fn a_session_that_may_only_read_leaves_the_other_its_writes() {
    let stage = shared(StoreKind::Layered, SIZE);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, true), Outcome::Done);
    let mut reader = connect(&stage, OTHER);
    let mut writer = connect(&stage, "vhost.sock");
    assert_ne!(reader.get_u64(GET_FEATURES) & READ_ONLY, 0);
    assert_eq!(writer.get_u64(GET_FEATURES) & READ_ONLY, 0);
    assert_eq!(writer.write(0, &[1; 512]), OK);
    assert_eq!(reader.write(0, &[2; 512]), IOERR);
    assert_eq!(reader.read(0, 512), [1; 512]);
    end(served);
}

#[test]
fn sessions_come_and_go_one_by_one() {
    let stage = shared(StoreKind::Layered, SIZE);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    assert_failed(&served.add_session(&stage, OTHER, false), code::ALREADY_SERVED);
    // The refused one has taken the path; the first listens nowhere any more.
    assert_eq!(remove(&mut served, OTHER, false), Outcome::Done);
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let mut one = connect(&stage, "vhost.sock");
    eventually("it is seen who is connected", || {
        served.sessions() == [(ATTACHMENT.to_owned(), true), (OTHER.to_owned(), false)]
    });
    assert_failed(&remove(&mut served, ATTACHMENT, false), code::FRONTEND_CONNECTED);
    assert_failed(
        &served.order(Order::Detach { force: false }),
        code::FRONTEND_CONNECTED,
    );
    assert_eq!(one.write(0, &[7; 4096]), OK, "a refusal changes nothing");
    let mut other = connect(&stage, OTHER);
    assert_eq!(remove(&mut served, ATTACHMENT, true), Outcome::Done);
    assert!(one.is_closed() && !stage.path("vhost.sock").exists());
    assert_eq!(other.read(0, 4096), [7; 4096]);
    assert_eq!(
        remove(&mut served, ATTACHMENT, true),
        Outcome::Done,
        "there is none"
    );
    assert_failed(
        &served.order(Order::AddSession(config("none"))),
        code::SOCKET_UNUSABLE,
    );
    drop(other);
    eventually("the end is seen", || {
        served.sessions() == [(OTHER.to_owned(), false)]
    });
    assert_eq!(remove(&mut served, OTHER, false), Outcome::Done);
    assert!(served.sessions().is_empty());
    end(served);
}

fn config(attachment: &str) -> sealblk_proto::message::SessionConfig {
    sealblk_proto::message::SessionConfig {
        attachment: attachment.to_owned(),
        queues: 2,
        read_only: false,
    }
}

#[test]
fn there_are_at_most_sixteen() {
    let stage = shared(StoreKind::Raw, SIZE);
    let mut served = stage.serve();
    for number in 1..16 {
        let name = format!("att-{number}");
        assert_eq!(served.add_session(&stage, &name, false), Outcome::Done);
    }
    assert_failed(&served.add_session(&stage, OTHER, false), code::TOO_MANY);
    let mut drivers: Vec<_> = (1..16)
        .map(|number| connect(&stage, &format!("att-{number}")))
        .collect();
    for (number, driver) in drivers.iter_mut().enumerate() {
        assert_eq!(driver.write(8 * number as u64, &[number as u8; 4096]), OK);
    }
    for (number, driver) in drivers.iter_mut().rev().enumerate() {
        assert_eq!(driver.read(8 * number as u64, 4096), [number as u8; 4096]);
    }
    end(served);
}

#[test]
fn all_hear_that_the_disk_has_grown_and_each_counts_as_connected() {
    let stage = shared(StoreKind::Layered, SIZE);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let mut drivers = ["vhost.sock", OTHER].map(|socket| connect(&stage, socket));
    let mut channels = drivers.each_mut().map(Driver::open_backend_channel);
    let change = |served: &mut Served, number: u64, change| {
        let operation = format!("op-{number:016x}");
        served.order(Order::Change { operation, change })
    };
    let size = 2 * SIZE;
    // Each has a channel on which it is told.
    assert_eq!(
        change(&mut served, 1, Change::Resize { size, hidden: false }),
        Outcome::Done
    );
    for (driver, channel) in drivers.iter_mut().zip(&mut channels) {
        let mut message = [0; 12];
        channel.read_exact(&mut message).unwrap();
        assert_eq!(driver.config(0, 8), (size / 512).to_le_bytes());
        assert_eq!(driver.write(size / 512 - 8, &[1; 4096]), OK);
    }
    // Whichever is connected.
    let reinitialise = |force| Change::Reinitialise { force };
    for driver in drivers {
        let refused = change(&mut served, 2, reinitialise(false));
        assert_failed(&refused, code::FRONTEND_CONNECTED);
        let connected = |served: &mut Served| served.sessions().iter().filter(|(_, is)| *is).count();
        let before = connected(&mut served);
        drop(driver);
        eventually("the end is seen", || connected(&mut served) < before);
    }
    assert_eq!(change(&mut served, 2, reinitialise(false)), Outcome::Done);
    end(served);
}

/// One under load at each socket, on parts of the disk of their own.
fn loads(stage: &Stage) -> [Load; 2] {
    let seed = seed();
    let load = |socket: &str, number: u64| {
        let driver = Driver::connect(&stage.path(socket));
        Load::beginning_at(driver, seed + number, number * DISK_BYTES / 512)
    };
    [load("vhost.sock", 0), load(OTHER, 1)]
}

fn run(loads: &mut [Load], count: u64) {
    for load in loads.iter_mut() {
        let until = load.completed + count;
        while load.completed < until {
            load.fill();
            load.reap();
        }
        load.fill();
    }
}

#[test]
fn one_goes_under_the_load_of_the_other() {
    let stage = shared(StoreKind::Layered, 2 * DISK_BYTES);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let [one, mut other] = loads(&stage);
    run(std::slice::from_mut(&mut other), 500);
    assert_failed(&remove(&mut served, ATTACHMENT, false), code::FRONTEND_CONNECTED);
    std::thread::scope(|scope| {
        let removed = scope.spawn(|| remove(&mut served, ATTACHMENT, true));
        run(std::slice::from_mut(&mut other), 2000);
        assert_eq!(removed.join().unwrap(), Outcome::Done);
    });
    other.check_all();
    drop(one);
    end(served);
}

fn kills_under_both_loads(kind: StoreKind) {
    let stage = shared(kind, 2 * DISK_BYTES);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let mut loads = loads(&stage);
    for _ in 0..6 {
        run(&mut loads, 300);
        std::thread::sleep(Duration::from_micros(loads[0].random.below(3000)));
        served.child.kill().unwrap();
        served.child.wait().unwrap();
        for load in &mut loads {
            load.reap_ready();
        }
        served = stage.serve();
        assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
        loads[0].driver.reconnect(&stage.path("vhost.sock"));
        loads[1].driver.reconnect(&stage.path(OTHER));
    }
    for load in &mut loads {
        load.check_all();
    }
    end(served);
}

#[test]
fn kills_under_both_loads_lose_nothing_on_a_raw_store() {
    kills_under_both_loads(StoreKind::Raw);
}

#[test]
fn kills_under_both_loads_lose_nothing_on_a_layered_store() {
    kills_under_both_loads(StoreKind::Layered);
}

#[test]
fn a_successor_takes_over_all_sessions() {
    let stage = shared(StoreKind::Layered, 2 * DISK_BYTES);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let mut loads = loads(&stage);
    for round in 0..4 {
        run(&mut loads, 300);
        if round == 1 {
            // One that serves fewer queues cannot, and all go on.
            let fewer = AttachmentConfig {
                queues: 1,
                ..stage.config()
            };
            let (outcome, next) = stage.replace_with(&mut served, fewer);
            assert!(
                matches!(outcome, Outcome::Failed(_)) && next.is_none(),
                "{outcome:?}"
            );
            continue;
        }
        let (outcome, next) = stage.replace(&mut served);
        assert_eq!(outcome, Outcome::Done);
        let (status, log) = std::mem::replace(&mut served, next.unwrap()).exit();
        assert_eq!(status, Some(0), "{log}");
        assert_eq!(
            served.sessions(),
            [(ATTACHMENT.to_owned(), true), (OTHER.to_owned(), true)]
        );
    }
    for load in &mut loads {
        load.check_all();
    }
    end(served);
}

/// The attachment that a process was begun with goes, and it serves on, over its own end and an upgrade.
#[test]
fn the_first_may_go_before_the_others() {
    let stage = shared(StoreKind::Layered, 2 * DISK_BYTES);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let [one, mut other] = loads(&stage);
    drop(one);
    assert_eq!(remove(&mut served, ATTACHMENT, true), Outcome::Done);
    run(std::slice::from_mut(&mut other), 300);
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    let without = AttachmentConfig {
        socket: String::new(),
        ..stage.config()
    };
    // Whatever its command line says.
    let mut command = stage.command();
    command.arg("--socket").arg(stage.path("vhost.sock"));
    served = stage.serve_as(command, without.clone());
    assert!(served.sessions().is_empty() && !stage.path("vhost.sock").exists());
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    other.driver.reconnect(&stage.path(OTHER));
    run(std::slice::from_mut(&mut other), 300);
    let (outcome, next) = stage.replace_with(&mut served, without);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(std::mem::replace(&mut served, next.unwrap()).exit().0, Some(0));
    assert_eq!(served.sessions(), [(OTHER.to_owned(), true)]);
    other.check_all();
    end(served);
}

/// Of what one writes while the other reads or writes the same place, each sector is of one write and in whole.
fn sectors_are_in_whole(kind: StoreKind) {
    let stage = shared(kind, SIZE);
    let mut served = stage.serve();
    assert_eq!(served.add_session(&stage, OTHER, false), Outcome::Done);
    let (mut one, mut other) = (connect(&stage, "vhost.sock"), connect(&stage, OTHER));
    assert_eq!(one.write(0, &[0; 8192]), OK);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..20_000u32 {
                assert_eq!(one.write(0, &[round as u8; 8192]), OK);
            }
        });
        for round in 0..20_000u32 {
            if round % 4 == 0 {
                assert_eq!(other.write(3, &[round as u8; 1024]), OK);
            }
            let read = other.read(0, 8192);
            for (sector, bytes) in read.chunks(512).enumerate() {
                assert!(
                    bytes.iter().all(|byte| *byte == bytes[0]),
                    "round {round}, sector {sector}"
                );
            }
        }
    });
    end(served);
}

#[test]
fn sectors_are_in_whole_on_a_raw_store() {
    sectors_are_in_whole(StoreKind::Raw);
}

#[test]
fn sectors_are_in_whole_on_a_layered_store() {
    sectors_are_in_whole(StoreKind::Layered);
}
