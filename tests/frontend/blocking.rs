//! Frontends that try to have a write to their descriptors block: the flag that keeps it from that, O_NONBLOCK, is of the
//! open file, which they share.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::driver::*;
use crate::inflight::Record;

/// One more does not fit.
const FULL: u64 = u64::MAX - 1;

/// An eventfd that the backend has for a descriptor of queue 0.
fn given(driver: &mut Driver, request: u32) -> OwnedFd {
    let file = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    driver.send(request, 1, &0u64.to_ne_bytes(), &[file.as_raw_fd()]);
    settle(driver);
    file
}

/// A write to it waits from now on.
fn block(file: &OwnedFd) {
    let flags = fcntl_getfl(file).unwrap();
    fcntl_setfl(file, flags | OFlags::NONBLOCK).unwrap();
    // Empty it is only if nobody has written to it.
    let _ = rustix::io::read(file, &mut [0; 8]);
    rustix::io::write(file, &FULL.to_ne_bytes()).unwrap();
    fcntl_setfl(file, flags - OFlags::NONBLOCK).unwrap();
}

/// A write to it waits, and does not, in turn, while `work` is done.
fn flipping(file: &OwnedFd, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = fcntl_getfl(file).unwrap();
            while !done.load(Ordering::Relaxed) {
                fcntl_setfl(file, flags - OFlags::NONBLOCK).unwrap();
                fcntl_setfl(file, flags | OFlags::NONBLOCK).unwrap();
            }
        });
        let _end = End(&done);
        work();
    });
}

/// Ends the flipping, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The backend has dealt with all that was sent.
fn settle(driver: &mut Driver) {
    driver.get_u64(GET_QUEUE_NUM);
}

/// Each queue works, stops and starts; the server comes to rest.
fn goes_on(rig: &Rig, driver: &mut Driver) {
    for _ in 0..3 {
        assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
        assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1));
    }
    let base = driver.stop_queue(0);
    assert_eq!(base, driver.used_index(0));
    driver.start_queue(0, 128, 0);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    rests(rig);
    assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1));
}

/// The server comes to rest, and goes on.
fn rests(rig: &Rig) {
    let suspended = rig.server.suspend(std::time::Instant::now() + PATIENCE).unwrap();
    rig.server.resume(suspended).unwrap();
}

fn driver(rig: &Rig) -> Driver {
    Driver::new(rig, VERSION_1 | PROTOCOL_FEATURES | FLUSH, 2, 128)
}

#[test]
fn a_call_descriptor_that_is_full_holds_nobody_up() {
    let rig = Rig::new(Options::default());
    let mut driver = driver(&rig);
    let call = given(&mut driver, SET_VRING_CALL);
    block(&call);
    goes_on(&rig, &mut driver);
}

#[test]
fn a_queue_whose_interrupt_does_not_get_through_stops() {
    let rig = Rig::new(Options::default());
    let mut driver = driver(&rig);
    let call = given(&mut driver, SET_VRING_CALL);
    block(&call);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    assert_eq!(driver.stop_queue(0), 1);
}

#[test]
fn a_call_descriptor_whose_flag_flips_holds_nobody_up() {
    let rig = Rig::new(Options::default());
    let mut driver = driver(&rig);
    let call = given(&mut driver, SET_VRING_CALL);
    block(&call);
    flipping(&call, || {
        for _ in 0..2000 {
            assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
        }
    });
    goes_on(&rig, &mut driver);
}

#[test]
fn a_new_call_descriptor_that_is_full_holds_nobody_up() {
    let rig = Rig::new(Options::default());
    let mut driver = driver(&rig);
    let call = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    block(&call);
    flipping(&call, || {
        for _ in 0..2000 {
            driver.send(SET_VRING_CALL, 1, &0u64.to_ne_bytes(), &[call.as_raw_fd()]);
            settle(&mut driver);
        }
    });
    goes_on(&rig, &mut driver);
}

#[test]
fn an_error_descriptor_that_is_full_holds_no_worker_up() {
    let rig = Rig::new(Options::default());
    let mut driver = driver(&rig);
    let error = given(&mut driver, SET_VRING_ERR);
    block(&error);
    driver.set_available_index(0, 500);
    driver.kick(0);
    rests(&rig);
    driver.stop_queue(0);
    driver.start_queue(0, 128, 0);
    goes_on(&rig, &mut driver);
}

#[test]
fn an_error_descriptor_that_is_full_holds_no_session_up() {
    let rig = Rig::new(Options::default());
    let mut driver = Driver::raw(&rig);
    driver.negotiate(VERSION_1 | PROTOCOL_FEATURES | FLUSH);
    driver.track_inflight(2, 128);
    let mut driver = driver.set_up(2, 128);
    let error = given(&mut driver, SET_VRING_ERR);
    block(&error);
    driver.stop_queue(0);
    // The queue cannot be started with this record.
    Record::first(&driver).set(10, &2048u16.to_ne_bytes());
    let kick = driver.queues[0].kick.as_raw_fd();
    driver.send(SET_VRING_KICK, 1, &0u64.to_ne_bytes(), &[kick]);
    assert_eq!(driver.request(1, T_FLUSH, 0, &[]), (OK, 1));
    assert_eq!(driver.stop_queue(0), 0);
    driver.track_inflight(2, 128);
    driver.start_queue(0, 128, 0);
    assert_eq!(driver.request(0, T_FLUSH, 0, &[]), (OK, 1));
    rests(&rig);
}
