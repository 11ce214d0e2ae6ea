//! What an attached disk takes: processor time while nothing is asked of it, and memory whatever is.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use crate::load::{DEPTH_MOST, LoadError, Session, Shape, Until};
use crate::peer::{Daemons, Peer, processor_time, resident};

const KIB: u32 = 1 << 10;
/// From one look at the memory to the next.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Args)]
pub(crate) struct Options {
    /// Queues, of 256 descriptors each.
    #[arg(long, default_value_t = 4)]
    queues: u16,
    /// Length of each load.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long nothing is asked.
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
    /// Where the images go [default: a directory for temporary files, from TMPDIR].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Size of the disk in MiB; all of it is written once.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
}

pub(crate) fn run(options: &Options) -> Result<(), LoadError> {
    let place = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let daemons = Daemons::start_in(&place);
    let size = options.mebibytes << 20;
    let peer = daemons.attach("sealblk layered", size, options.queues, "layered", true);
    show("attached, nobody connected", resident(peer.pid));
    let shape = |write, random, block| Shape {
        write,
        random,
        block,
        depth: DEPTH_MOST,
        queues: options.queues,
        span: size,
        stride: block,
    };
    let all = Until::Requests((size >> 20).div_ceil(u64::from(options.queues)));
    let time = Until::Elapsed(Duration::from_secs_f64(options.seconds));
    let loads = [
        ("1 MiB writes of everything", shape(true, false, 1024 * KIB), all),
        ("4 KiB random writes", shape(true, true, 4 * KIB), time),
        ("4 KiB random reads", shape(false, true, 4 * KIB), time),
        ("1 MiB random reads", shape(false, true, 1024 * KIB), time),
        // Of no multiple of a page: neither end of a request is aligned.
        ("999.5 KiB random writes", shape(true, true, 1999 * KIB / 2), time),
    ];
    for (name, shape, until) in loads {
        let mut session = Session::connect(&peer.socket, &shape)?;
        let most = while_watched(&peer, || session.send(until).map(drop))?;
        show(&format!("most during {name}"), most);
        rest(&peer, options.rest);
    }
    Ok(())
}

/// Runs the work, and gives the most memory that was seen meanwhile, in bytes.
fn while_watched(peer: &Peer, work: impl FnOnce() -> Result<(), LoadError>) -> Result<u64, LoadError> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(resident(peer.pid));
                std::thread::sleep(LOOK);
            }
            most
        });
        let outcome = work();
        ended.store(true, Ordering::Relaxed);
        let most = watcher.join().expect("the watching thread");
        outcome.map(|()| most)
    })
}

/// Connected, and nothing is asked.
fn rest(peer: &Peer, seconds: f64) {
    // What the load has begun comes to its end.
    std::thread::sleep(Duration::from_secs(1));
    let before = processor_time(peer.pid);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let spent = processor_time(peer.pid).saturating_sub(before);
    println!(
        "  at rest afterwards: {:.3} ms of processor time a second, {:.1} MiB",
        spent as f64 / 1e6 / seconds,
        mebibytes(resident(peer.pid)),
    );
}

fn show(what: &str, bytes: u64) {
    println!("{what}: {:.1} MiB", mebibytes(bytes));
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
