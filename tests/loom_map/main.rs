//! The structures of the layered store that are read without locks, and what a signal handler reads, under loom: it runs each model through all
//! interleavings (with a bounded number of preemptions) and all values that the memory model lets a load see.
//!
//! The sources are compiled once more, with loom's types in place of the standard library's.

// The models do not use all of them.
#[allow(dead_code)]
#[path = "../../src/store/layered/entry.rs"]
mod entry;
#[allow(dead_code)]
#[path = "../../src/store/layered/epoch.rs"]
mod epoch;
#[allow(dead_code)]
#[path = "../../src/store/layered/map/mod.rs"]
mod map;
#[path = "../../src/vhost/sigbus/span.rs"]
mod span;
mod sync;
#[allow(dead_code)]
#[path = "../../src/store/layered/table.rs"]
mod table;

mod lookups;
mod reuse;
mod snapshots;
mod spans;

use entry::{Entry, Part};
use map::{LEAF_ENTRIES, LiveMap};

/// Runs `model` with all interleavings of at most `preemptions` preemptions.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A map whose leaf 0 is loaded and empty, with room for `splits` splits.
fn empty_map(splits: usize) -> LiveMap {
    let map = LiveMap::new(splits);
    map.install(0, &[Entry::default(); LEAF_ENTRIES]).unwrap();
    map
}

fn part(cluster: u32, mask: u16) -> Part {
    Part {
        cluster,
        slot: 0,
        mask,
    }
}

fn plain(cluster: u32, mask: u16) -> Entry {
    Entry {
        front: part(cluster, mask),
        back: Part::default(),
    }
}

fn split(front: (u32, u16), back: (u32, u16)) -> Entry {
    Entry {
        front: part(front.0, front.1),
        back: part(back.0, back.1),
    }
}

/// The cluster that has `block`.
fn place(entry: Entry, block: u16) -> Option<u32> {
    [entry.front, entry.back]
        .into_iter()
        .find(|part| part.mask & 1 << block != 0)
        .map(|part| part.cluster)
}
