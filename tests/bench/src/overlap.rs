//! Machines that share a disk and all write to the same sector: each request waits for all that came before it, so that what
//! is measured is what such waiting costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use sealblk_e2e::kms;

use crate::load::{DEPTH_MOST, LoadError, Outcome, Session, Shape, Until};
use crate::peer::{Daemons, processor_time};
use crate::statistics::Spread;

const DISK: &str = "shared";

#[derive(Args)]
pub(crate) struct Options {
    /// Machines, at most 16.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=16))]
    machines: u16,
    /// Queues of each, with 85 requests in flight.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=16))]
    queues: u16,
    /// Requests on each queue in one round.
    #[arg(long, default_value_t = 200)]
    requests: u64,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the image goes [default: a directory for temporary files, from TMPDIR].
    #[arg(long)]
    directory: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<(), LoadError> {
    let place = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let daemons = Daemons::start_in(&place);
    let kms = daemons.kms();
    kms.create(DISK, &["--shared", "--store", "raw"]);
    let shape = Shape {
        write: true,
        random: false,
        block: 512,
        depth: DEPTH_MOST,
        queues: options.queues,
        span: 512,
        stride: 512,
    };
    let mut sessions = Vec::new();
    for machine in 0..options.machines {
        let name = format!("machine-{machine}");
        kms.ok(&["instance", "register", &name]);
        let attachment = kms.ok(&["attach", DISK, &name, "--queues", &options.queues.to_string()]);
        sessions.push(Session::connect(kms::path(&attachment, "socket"), &shape)?);
    }
    let pid = sealblk_e2e::eventually("a serving process", || kms.backend(DISK));
    let (mut rates, mut costs, mut longest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let before = processor_time(pid);
        let (outcome, elapsed) = send(&mut sessions, Until::Requests(options.requests))?;
        let requests = outcome.requests as f64;
        rates.push(requests / elapsed.as_secs_f64());
        costs.push((processor_time(pid) - before) as f64 / 1e3 / requests);
        longest.push(outcome.latencies.max() as f64 / 1e6);
    }
    let in_flight = options.machines * options.queues * DEPTH_MOST;
    println!(
        "{in_flight} writes of one sector in flight, from {} machines:",
        options.machines
    );
    for (what, figures) in [
        ("requests a second", rates),
        ("µs of processor time a request", costs),
        ("ms, the longest latency", longest),
    ] {
        let Spread { min, median, max } = Spread::of(figures);
        println!("  {median:.0} {what} ({min:.0} to {max:.0})");
    }
    Ok(())
}

/// On all at once.
fn send(sessions: &mut [Session], until: Until) -> Result<(Outcome, Duration), LoadError> {
    let start = Instant::now();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(move || session.send(until)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a load thread"))
            .collect()
    });
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.add(&outcome?);
    }
    Ok((all, start.elapsed()))
}
