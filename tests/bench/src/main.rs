//! Measures sealblk beside qemu-storage-daemon, through one load generator. `scripts/bench` builds and runs it.

mod compare;
mod idle;
mod kms;
mod layers;
mod load;
mod overlap;
mod peer;
mod report;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use load::{LoadError, Outcome, Shape, Until};

/// Measure sealblk and its peers over vhost-user-blk.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// sealblk and qemu-storage-daemon, plain and encrypted, in turns; prints a table with ratios.
    Compare(compare::Options),
    /// What snapshots, rollbacks and clones cost on a layered store.
    Layers(layers::Options),
    /// Calls of the KMS: how many in a second, and how long they take with a full catalogue.
    Kms(kms::Options),
    /// What a disk of sealblk takes when it has nothing to do, and the memory that it takes under loads.
    Idle(idle::Options),
    /// Many machines' writes of the same sector of a disk that they share.
    Overlap(overlap::Options),
    /// One load on any vhost-user-blk socket.
    Load(LoadOptions),
}

#[derive(Args)]
struct LoadOptions {
    /// The backend's socket.
    #[arg(long)]
    socket: PathBuf,
    /// Write instead of reading: what is on the disk is lost.
    #[arg(long)]
    write: bool,
    /// One place after another instead of random ones.
    #[arg(long)]
    sequential: bool,
    /// Bytes of a request.
    #[arg(long, default_value_t = 4096)]
    block: u32,
    /// Requests in flight on each queue.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=i64::from(load::DEPTH_MOST)))]
    depth: u16,
    /// Queues.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Bytes of the disk that are used.
    #[arg(long, default_value_t = 1 << 30)]
    span: u64,
    /// How long.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Print how each second went, so that a stall can be seen.
    #[arg(long)]
    each_second: bool,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Layers(options) => layers::run(&options),
        Command::Kms(options) => kms::run(&options),
        Command::Idle(options) => idle::run(&options),
        Command::Overlap(options) => overlap::run(&options),
        Command::Load(options) => one_load(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one_load(options: &LoadOptions) -> Result<(), LoadError> {
    let shape = Shape {
        write: options.write,
        random: !options.sequential,
        block: options.block,
        depth: options.depth,
        queues: options.queues,
        span: options.span,
        stride: options.block,
    };
    let mut session = load::Session::connect(&options.socket, &shape)?;
    let (parts, part) = if options.each_second {
        (options.seconds.ceil() as u32, 1.0)
    } else {
        (1, options.seconds)
    };
    for _ in 0..parts {
        print_outcome(&session.send(Until::Elapsed(Duration::from_secs_f64(part)))?);
    }
    Ok(())
}

fn print_outcome(outcome: &Outcome) {
    let micros = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    println!(
        "{:.1} kIOPS, {:.0} MB/s, latency in µs: p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        outcome.iops() / 1e3,
        outcome.rate() / 1e6,
        micros(outcome.latencies.quantile(0.5)),
        micros(outcome.latencies.quantile(0.99)),
        micros(outcome.latencies.quantile(0.999)),
        micros(outcome.latencies.max()),
    );
}
