//! What happens to the daemon and to the machine meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::draw::Draw;
use super::tally::Tally;
use super::world::World;
use crate::frontend::Guest;
use crate::fuse::Answers;
use crate::kms::path;
use crate::process;

/// Disk of the owner that fills the file system.
const FILLER: &str = "filler";
/// How much a guest writes at once.
const CHUNK: usize = 1 << 20;
const OFFSETS: [&str; 8] = ["+2h", "+8d", "+40d", "+400d", "-2h", "-8d", "-400d", "+27y"];

/// Goes on until then.
pub(super) fn rage(world: &mut World, mut draw: Draw, end: Instant, tally: &Tally) {
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500 + draw.below(4000)));
        let event = catch_unwind(AssertUnwindSafe(|| happen(world, &mut draw, tally)));
        if event.is_err() {
            tally.wrong("an event panicked: see above");
            return;
        }
    }
}

fn happen(world: &mut World, draw: &mut Draw, tally: &Tally) {
    match draw.below(10) {
        0..3 => {
            tally.event("daemon killed");
            world.kms.kill();
            if draw.once_in(3) {
                kill_one(world, None, draw, tally);
            }
            world.serve();
        }
        3 => {
            tally.event("daemon ended and started");
            world.kms.stop();
            world.serve();
        }
        4..7 => kill_one(world, None, draw, tally),
        7 if world.clock.is_some() => {
            tally.event("clock moved and put right");
            world.move_clock(draw.of::<&str>(&OFFSETS));
            std::thread::sleep(Duration::from_millis(draw.below(6000)));
            if draw.once_in(2) {
                world.kms.kill();
                world.serve();
            }
            world.move_clock("+0");
        }
        8 => hang(world, draw, tally),
        9 if draw.once_in(3) => fill(world, draw, tally),
        _ => {}
    }
}

/// Kills one of the serving, copying or maintaining processes, but not this one.
fn kill_one(world: &World, spared: Option<i64>, draw: &mut Draw, tally: &Tally) {
    let mut processes = process::processes_of(&world.kms.state().join("run"));
    processes.retain(|pid| Some(i64::from(*pid)) != spared);
    if !processes.is_empty() {
        tally.event("process killed");
        process::signal(*draw.of(&processes), Signal::KILL);
    }
}

/// The mount hangs for some seconds; meanwhile the daemon may be killed, and must start.
fn hang(world: &mut World, draw: &mut Draw, tally: &Tally) {
    tally.event("mount hung");
    let answers = *draw.of(&[Answers::Stopped, Answers::Stopped, Answers::Held]);
    world.fuse.answer(answers);
    world.desk.hangs.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(1000 + draw.below(15_000)));
    // The kernel may not let go of a daemon that waits for a request which was taken and not answered.
    if answers != Answers::Held && draw.once_in(3) {
        tally.event("daemon killed while a mount hung");
        world.kms.kill();
        world.serve();
        std::thread::sleep(Duration::from_millis(draw.below(5000)));
    }
    world.desk.hangs.store(false, Ordering::SeqCst);
    world.fuse.answer(Answers::AtOnce);
}

/// A guest writes until there is no room; after some seconds the API makes some again. The daemon is left alone meanwhile: its
/// start needs some room (docs/operating.md, *Full disks*).
fn fill(world: &mut World, draw: &mut Draw, tally: &Tally) {
    let create = ["disk", "create", FILLER, "--size", "1GiB", "--encrypted=false"];
    if world.kms.sealctl(&create).status != Some(0) {
        return;
    }
    let _ = world.kms.sealctl(&["instance", "register", "vm"]);
    let attached = world.kms.sealctl(&["-o", "json", "attach", FILLER, "vm"]);
    if attached.status == Some(0) {
        let attachment = attached.json();
        let mut guest = Guest::connect(path(&attachment, "socket"));
        let mut sector = 0;
        // Chunk by chunk, then sector by sector.
        for bytes in [CHUNK, 4096] {
            while guest.try_write(sector, &vec![0xf1; bytes]) == 0 && sector < (1 << 30) / 512 {
                sector += bytes as u64 / 512;
            }
        }
        tally.event("file system filled");
        for _ in 0..draw.below(4) {
            kill_one(world, attachment["pid"].as_i64(), draw, tally);
            std::thread::sleep(Duration::from_millis(draw.below(3000)));
        }
    }
    for call in [
        &["detach", FILLER, "--force"][..],
        &["disk", "delete", FILLER, "--now"],
    ] {
        let outcome = world.kms.sealctl(call);
        if outcome.status != Some(0) {
            tally.wrong(format!("{call:?} on a full file system: {outcome:?}"));
        }
    }
}
