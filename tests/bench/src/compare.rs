//! sealblk and qemu-storage-daemon in turns, so that what the machine does besides meets all alike.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::load::{LoadError, Session, Shape, Until};
use crate::peer::{Daemons, Fio, Peer, StorageDaemon, processor_time};
use crate::report;

const KIB: u32 = 1 << 10;

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; each measures every backend once in every shape.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where the images go [default: a directory for temporary files, from TMPDIR].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Size of each disk in MiB.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// The storage daemon reads and writes past the page cache, as sealblk does where that is possible: for images on a
    /// disk.
    #[arg(long)]
    direct: bool,
    /// Measure fio, too: what the storage gives without a backend in between. For images on a disk.
    #[arg(long)]
    fio: bool,
    /// Measure the encrypted layered disk once more with queues that look for work so long before they sleep, in µs.
    #[arg(long)]
    poll_time: Option<u32>,
    /// Only shapes whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Write a report with plots to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// A shape with its name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// In requests or else in bytes a second.
    pub(crate) in_requests: bool,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Requests or bytes a second.
    pub(crate) speed: f64,
    /// Processor time of the backend for each request, in µs.
    pub(crate) processor: f64,
    /// Median latency in µs.
    pub(crate) p50: f64,
    /// In µs.
    pub(crate) p99: f64,
}

/// Measurements of a case by peer and round.
pub(crate) type Rounds = Vec<Vec<Measured>>;

fn cases(span: u64) -> Vec<Case> {
    let shape = |write, random, block, depth, queues| Shape {
        write,
        random,
        block,
        depth,
        queues,
        span,
        stride: block,
    };
    let case = |name, shape: Shape| Case {
        name,
        in_requests: shape.block < 64 * KIB,
        shape,
    };
    vec![
        case("4k randread qd32", shape(false, true, 4 * KIB, 32, 1)),
        case("4k randwrite qd32", shape(true, true, 4 * KIB, 32, 1)),
        case("4k randread qd1", shape(false, true, 4 * KIB, 1, 1)),
        case("4k randwrite qd1", shape(true, true, 4 * KIB, 1, 1)),
        case("4k randread qd32 x2", shape(false, true, 4 * KIB, 32, 2)),
        case("128k read qd16", shape(false, false, 128 * KIB, 16, 1)),
        case("128k write qd16", shape(true, false, 128 * KIB, 16, 1)),
        case("1M read qd8", shape(false, false, 1024 * KIB, 8, 1)),
        case("1M write qd8", shape(true, false, 1024 * KIB, 8, 1)),
    ]
}

pub(crate) fn run(options: &Options) -> Result<(), LoadError> {
    let place = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new()
        .prefix("sealblk-bench-")
        .tempdir_in(&place)?;
    let size = options.mebibytes << 20;
    let queues = 2;
    let (_raw_daemon, raw) = StorageDaemon::start(directory.path(), size, queues, false, options.direct)?;
    let (_luks_daemon, luks) = StorageDaemon::start(directory.path(), size, queues, true, options.direct)?;
    let daemons = Daemons::start_in(&place);
    let mut peers = vec![
        Contestant::Backend(luks),
        Contestant::Backend(raw),
        Contestant::Backend(daemons.attach("sealblk layered", size, queues, "layered", true)),
        Contestant::Backend(daemons.attach("sealblk layered plain", size, queues, "layered", false)),
        Contestant::Backend(daemons.attach("sealblk raw", size, queues, "raw", true)),
        Contestant::Backend(daemons.attach("sealblk raw plain", size, queues, "raw", false)),
    ];
    let polling = options.poll_time.map(|micros| {
        let daemons = Daemons::start_with(&place, &["--poll-time", &micros.to_string()]);
        let peer = daemons.attach("sealblk polling", size, queues, "layered", true);
        (daemons, peer)
    });
    peers.extend(polling.iter().map(|(_, peer)| Contestant::Backend(peer.clone())));
    if options.fio {
        peers.push(Contestant::Storage(Fio::new(directory.path())));
    }
    for peer in &peers {
        eprintln!("filling the disk of {}", peer.name());
        peer.fill(size)?;
    }
    let mut results = Vec::new();
    for case in cases(size) {
        if options
            .only
            .as_ref()
            .is_some_and(|only| !case.name.contains(only.as_str()))
        {
            continue;
        }
        let mut rounds: Rounds = vec![Vec::new(); peers.len()];
        for round in 0..options.rounds {
            eprintln!("{}, round {} of {}", case.name, round + 1, options.rounds);
            for (peer, measured) in peers.iter().zip(&mut rounds) {
                measured.push(peer.measure(&case, options.seconds)?);
            }
        }
        results.push((case, rounds));
    }
    let names: Vec<&str> = peers.iter().map(Contestant::name).collect();
    print!("{}", report::text(&names, &results));
    if let Some(path) = &options.report {
        std::fs::write(path, report::html(&names, &results))?;
        eprintln!("report: {}", path.display());
    }
    Ok(())
}

/// Who is measured.
enum Contestant {
    Backend(Peer),
    Storage(Fio),
}

impl Contestant {
    fn name(&self) -> &'static str {
        match self {
            Contestant::Backend(peer) => peer.name,
            Contestant::Storage(fio) => fio.name,
        }
    }

    /// Writes the whole disk once: what was never written costs nothing to read.
    fn fill(&self, span: u64) -> Result<(), LoadError> {
        let shape = Shape {
            write: true,
            random: false,
            block: 256 * KIB,
            depth: 8,
            queues: 1,
            span,
            stride: 256 * KIB,
        };
        match self {
            Contestant::Backend(peer) => {
                let all = Until::Requests(span / u64::from(shape.block));
                Session::connect(&peer.socket, &shape)?.send(all)?;
            }
            Contestant::Storage(fio) => fio.fill(&shape)?,
        }
        Ok(())
    }

    fn measure(&self, case: &Case, seconds: f64) -> Result<Measured, LoadError> {
        match self {
            Contestant::Backend(peer) => measure(peer, case, seconds),
            Contestant::Storage(fio) => Ok(fio.measure(&case.shape, Duration::from_secs_f64(seconds))?),
        }
    }
}

fn measure(peer: &Peer, case: &Case, seconds: f64) -> Result<Measured, LoadError> {
    let mut session = Session::connect(&peer.socket, &case.shape)?;
    // Threads have started and caches are warm afterwards.
    session.send(Until::Elapsed(Duration::from_millis(100)))?;
    let before = processor_time(peer.pid);
    let outcome = session.send(Until::Elapsed(Duration::from_secs_f64(seconds)))?;
    let spent = processor_time(peer.pid).saturating_sub(before);
    let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    Ok(Measured {
        speed: if case.in_requests {
            outcome.iops()
        } else {
            outcome.rate()
        },
        processor: micros(spent) / outcome.requests as f64,
        p50: micros(outcome.latencies.quantile(0.5)),
        p99: micros(outcome.latencies.quantile(0.99)),
    })
}
