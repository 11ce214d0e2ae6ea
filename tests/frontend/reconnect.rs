//! The process is killed under a load, again and again, and its successor takes up what was in flight.
//!
//! SEALBLK_KILLS says how often (10), SEALBLK_SEED which requests and moments (printed, otherwise chosen by the clock).

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealblk_proto::message::StoreKind;

use crate::driver::Driver;
use crate::load::{DISK_BYTES, Load};
use crate::stage::Stage;

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

pub(crate) fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("SEALBLK_SEED").unwrap_or(clock);
    eprintln!("SEALBLK_SEED={seed}");
    seed
}

fn survives_kills(kind: StoreKind, queue_size: u16, reconnect: fn(&mut Driver, &Path)) {
    let stage = Stage::of(kind, DISK_BYTES);
    let socket = stage.path("vhost.sock");
    let mut served = stage.serve();
    let mut load = Load::with_queues_of(queue_size, Driver::connect(&socket), seed(), 0);
    for _ in 0..number("SEALBLK_KILLS").unwrap_or(10) {
        let until = load.completed + 100 + load.random.below(900);
        while load.completed < until {
            load.fill();
            load.reap();
        }
        load.fill();
        std::thread::sleep(Duration::from_micros(load.random.below(3000)));
        served.child.kill().unwrap();
        served.child.wait().unwrap();
        // What was completed is completed; offers that nobody may hear of are made as well.
        load.reap_ready();
        if load.random.below(2) == 0 {
            load.fill();
        }
        served = stage.serve();
        reconnect(&mut load.driver, &socket);
    }
    load.check_all();
    drop(load);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

#[test]
fn kills_under_load_lose_nothing_on_a_raw_store() {
    survives_kills(StoreKind::Raw, 128, Driver::reconnect);
}

#[test]
fn kills_under_load_lose_nothing_on_a_layered_store() {
    survives_kills(StoreKind::Layered, 128, Driver::reconnect);
}

#[test]
fn kills_under_load_lose_nothing_whatever_base_the_frontend_tells() {
    survives_kills(StoreKind::Layered, 128, Driver::reconnect_from_available);
}

/// As QEMU 10 does: it speaks of 128 entries where it asks for the memory, and sets up queues of 1024.
#[test]
fn kills_under_load_lose_nothing_in_queues_larger_than_the_frontend_has_said() {
    survives_kills(StoreKind::Layered, 1024, Driver::reconnect);
}
