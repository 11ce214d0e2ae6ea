//! What snapshots, rollbacks and clones cost on a layered store, as the guest and the operator see it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::load::{Histogram, LoadError, Outcome, Session, Shape, Until, send};
use crate::peer::{Daemons, Peer, resident};
use crate::statistics::Spread;

const KIB: u32 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

#[derive(Args)]
pub(crate) struct Options {
    /// Where the images go: on a disk, for figures that include one [default: a directory for temporary files].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Data that is scattered over 1 TiB, in MiB.
    #[arg(long, default_value_t = 4096)]
    scattered: u64,
    /// Length of each load under which snapshots are taken.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Requests of each series of overwrites.
    #[arg(long, default_value_t = 20_000)]
    overwrites: u64,
}

pub(crate) fn run(options: &Options) -> Result<(), LoadError> {
    let place = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let daemons = Daemons::start_in(&place);
    stalls(&daemons, options)?;
    overwrites(&daemons, options)?;
    many_snapshots(&daemons)?;
    memory(&daemons)
}

fn shape(write: bool, block: u32, depth: u16, span: u64) -> Shape {
    Shape {
        write,
        random: true,
        block,
        depth,
        queues: 1,
        span,
        stride: block,
    }
}

/// Runs an operator's command; returns how long it took in ms.
fn timed(daemons: &Daemons, arguments: &[&str]) -> f64 {
    let start = Instant::now();
    daemons.kms().ok(arguments);
    start.elapsed().as_secs_f64() * 1e3
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// The longest stall of a guest under full random-write load, with and without snapshots, for little and much data.
fn stalls(daemons: &Daemons, options: &Options) -> Result<(), LoadError> {
    for (disk, mebibytes) in [("little", 16), ("much", options.scattered)] {
        let peer = daemons.attach(disk, TIB, 1, "layered", true);
        let clusters = (mebibytes << 20) / 65_536;
        send(
            &peer.socket,
            &shape(true, 64 * KIB, 16, TIB),
            Until::Requests(clusters),
        )?;
        println!(
            "1 TiB disk with {mebibytes} MiB in clusters scattered over it, 4 KiB random writes over all of it, qd 32"
        );
        let mut session = Session::connect(&peer.socket, &shape(true, 4 * KIB, 32, TIB))?;
        let without = seconds_of(&mut session, options.seconds)?;
        let mut commands = Vec::new();
        let with = std::thread::scope(|scope| {
            let load = scope.spawn(|| seconds_of(&mut session, options.seconds));
            for number in 0..options.seconds.saturating_sub(1) {
                std::thread::sleep(Duration::from_secs(1));
                let name = format!("s{number}");
                commands.push(timed(daemons, &["snapshot", "create", disk, &name]));
            }
            load.join().expect("the load")
        })?;
        drop(session);
        tail("  without snapshots", &without);
        tail("  a snapshot each second", &with);
        took("  sealctl snapshot create", &commands);
        daemons.kms().ok(&["detach", disk]);
        took(
            "  sealctl rollback, detached",
            &[timed(daemons, &["rollback", disk, "s0"])],
        );
        let clone = format!("{disk}-clone");
        took(
            "  sealctl disk create --snapshot",
            &[timed(
                daemons,
                &["disk", "create", &clone, "--snapshot", &format!("{disk}/s1")],
            )],
        );
        took(
            "  sealctl attach of the clone",
            &[timed(daemons, &["attach", &clone, "bench"])],
        );
        took(
            "  sealctl disk reinit, detached",
            &[timed(daemons, &["disk", "reinit", disk])],
        );
    }
    Ok(())
}

/// Loads of a second, one after another.
fn seconds_of(session: &mut Session, seconds: u32) -> Result<Histogram, LoadError> {
    let mut all = Histogram::default();
    for _ in 0..seconds {
        all.merge(&session.send(Until::Elapsed(Duration::from_secs(1)))?.latencies);
    }
    Ok(all)
}

fn tail(title: &str, latencies: &Histogram) {
    let at = |share| milliseconds(latencies.quantile(share));
    println!(
        "{title:<34} latency in ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, p99.99 {:.2}, max {:.2}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        milliseconds(latencies.max())
    );
}

fn took(title: &str, milliseconds: &[f64]) {
    let spread = Spread::of(milliseconds.iter().copied());
    println!(
        "{title:<34} {:.1} ms ({:.1} – {:.1}, {} times)",
        spread.median,
        spread.min,
        spread.max,
        milliseconds.len()
    );
}

/// Random overwrites of 4 KiB: plain ones, the first ones after a snapshot, later ones, and those after another snapshot,
/// which find clusters that are split already.
fn overwrites(daemons: &Daemons, options: &Options) -> Result<(), LoadError> {
    let span = 2 * GIB;
    let peer = daemons.attach("overwritten", span, 1, "layered", true);
    fill(&peer, span)?;
    println!(
        "2 GiB disk, written; {} random overwrites of 4 KiB, qd 32",
        options.overwrites
    );
    let series = |title: &str, base: Option<&Outcome>| -> Result<Outcome, LoadError> {
        // The same places each time.
        let outcome = send(
            &peer.socket,
            &shape(true, 4 * KIB, 32, span),
            Until::Requests(options.overwrites),
        )?;
        let ratio = base.map(|base| outcome.elapsed.as_secs_f64() / base.elapsed.as_secs_f64());
        let ratio = ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} times the plain ones"));
        println!("  {title:<44} {:>7.1} kIOPS{ratio}", outcome.iops() / 1e3);
        Ok(outcome)
    };
    for round in 0..3 {
        series("(warm-up)", None)?;
        let plain = series("plain", None)?;
        daemons
            .kms()
            .ok(&["snapshot", "create", "overwritten", &format!("r{round}a")]);
        series("first after a snapshot", Some(&plain))?;
        series("later ones", Some(&plain))?;
        daemons
            .kms()
            .ok(&["snapshot", "create", "overwritten", &format!("r{round}b")]);
        series("after another snapshot, of split clusters", Some(&plain))?;
        series("later ones", Some(&plain))?;
        for letter in ["a", "b"] {
            daemons
                .kms()
                .ok(&["snapshot", "delete", &format!("overwritten/r{round}{letter}")]);
        }
        // What the snapshots had alone is given back in the background.
        sealblk_e2e::eventually("the space of deleted snapshots", || {
            let disk = daemons.kms().disk("overwritten");
            (disk["shared_bytes"].as_u64() == Some(0)).then_some(())
        });
        fill(&peer, span)?;
    }
    Ok(())
}

fn fill(peer: &Peer, span: u64) -> Result<(), LoadError> {
    let sequential = Shape {
        random: false,
        ..shape(true, 256 * KIB, 8, span)
    };
    let requests = span / u64::from(sequential.block);
    send(&peer.socket, &sequential, Until::Requests(requests))?;
    Ok(())
}

/// Reads with and without a long history.
fn many_snapshots(daemons: &Daemons) -> Result<(), LoadError> {
    let span = GIB;
    let peers = [
        daemons.attach("without-history", span, 1, "layered", true),
        daemons.attach("with-history", span, 1, "layered", true),
    ];
    for peer in &peers {
        fill(peer, span)?;
    }
    for number in 0..100 {
        daemons
            .kms()
            .ok(&["snapshot", "create", "with-history", &format!("h{number}")]);
        for peer in &peers {
            // Places of sessions are the same: a step of its own for each.
            let step = shape(true, 4 * KIB, 32, span / 100 * (number + 1));
            send(&peer.socket, &step, Until::Requests(200))?;
        }
    }
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let speeds = peers.each_ref().map(|peer| {
            send(
                &peer.socket,
                &shape(false, 4 * KIB, 32, span),
                Until::Elapsed(Duration::from_secs(2)),
            )
        });
        let [without, with] = speeds;
        ratios.push(with?.iops() / without?.iops());
    }
    let ratio = Spread::of(ratios);
    println!(
        "4 KiB random reads after 100 snapshots: {:.2} times as fast as after none ({:.2} – {:.2})",
        ratio.median, ratio.min, ratio.max
    );
    Ok(())
}

/// Memory of the map: a disk of which every cluster has a block.
fn memory(daemons: &Daemons) -> Result<(), LoadError> {
    let span = 32 * GIB;
    let peer = daemons.attach("memory", span, 1, "layered", true);
    let before = resident(peer.pid);
    let one_block_a_cluster = Shape {
        random: false,
        stride: 64 * KIB,
        ..shape(true, 4 * KIB, 32, span)
    };
    send(&peer.socket, &one_block_a_cluster, Until::Requests(span / 65_536))?;
    daemons.kms().ok(&["detach", "memory"]);
    let peer = daemons.attach_existing("memory", "memory", 1);
    let after = resident(peer.pid);
    println!(
        "memory of the serving process: {:.1} MiB empty; {:.1} MiB more with all clusters of {} GiB in use: {:.0} MiB a TiB",
        before as f64 / f64::from(1 << 20),
        (after.saturating_sub(before)) as f64 / f64::from(1 << 20),
        span / GIB,
        (after.saturating_sub(before)) as f64 / f64::from(1 << 20) * (TIB / span) as f64
    );
    Ok(())
}
