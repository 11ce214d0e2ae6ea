//! A long run in bad weather: callers of three accounts make random calls, while daemon and serving processes are killed,
//! the clock jumps, a mount hangs and the file system fills. At the end catalogue, stores, usage and audit log must agree.
//!
//! What is drawn follows from the seed; what becomes of it, from the machine's timing too.

mod callers;
mod draw;
mod tally;
mod verdict;
mod weather;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use draw::Draw;
use tally::Tally;
use world::World;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long.
    pub time: Duration,
    /// Where the random numbers begin.
    pub seed: u64,
    /// libfaketime, with which the daemon's clock is moved; without, it is left alone.
    pub faketime: Option<String>,
}

/// Runs it, and prints what was done and what is wrong. False if something is. As root, with FUSE.
///
/// # Panics
/// If there is no place for it.
pub fn run(options: &Options) -> bool {
    let tally = Arc::new(Tally::default());
    let Some(world) = World::new(options.faketime.as_deref()) else {
        println!("it cannot be run here");
        return false;
    };
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..callers::COUNT)
        .map(|number| {
            let (desk, tally, over) = (world.desk.clone(), Arc::clone(&tally), Arc::clone(&over));
            let draw = Draw::new(options.seed.wrapping_mul(0x1_0001).wrapping_add(number as u64));
            std::thread::spawn(move || callers::call(number, &desk, draw, &tally, &over))
        })
        .collect();
    let mut world = world;
    weather::rage(
        &mut world,
        Draw::new(options.seed),
        Instant::now() + options.time,
        &tally,
    );
    over.store(true, Ordering::SeqCst);
    for caller in callers {
        if caller.join().is_err() {
            tally.wrong("a caller panicked");
        }
    }
    verdict::judge(&mut world, &tally);
    tally.print();
    tally.is_clean()
}
