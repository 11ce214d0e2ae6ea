//! Clusters that are used again: not while anybody may still go by the old map.

use crate::medium::Limits;
use crate::script::{Run, Step};

const CLUSTER: u64 = 128;

/// A write in flight, planned before its cluster was discarded, must not land in what another write was given.
#[test]
fn not_while_a_request_in_flight_writes_there() {
    let mut run = Run::new(60 * CLUSTER);
    run.medium.set_limits(Limits {
        bytes: 39 << 16,
        pages: usize::MAX,
    });
    run.steps(&[Step::Write(0, CLUSTER), Step::Flush]);
    let part = run.disk.try_begin(0, 8, 5).unwrap().unwrap();
    run.step(Step::Discard(0, CLUSTER));
    let mut at = CLUSTER;
    for _ in 0..200 {
        run.disk.store.step().unwrap();
        if let Ok(Some(other)) = run.disk.try_begin(at, CLUSTER, 6) {
            let other = run.disk.put(other).unwrap();
            run.disk.finish(other).unwrap();
            at += CLUSTER;
        }
    }
    let part = run.disk.put(part).unwrap();
    let filled = run.disk.read(CLUSTER, at - CLUSTER).unwrap();
    assert!(filled.iter().all(|value| *value == 6));
    assert!(filled.len() > 128, "there was room for something");
    run.disk.finish(part).unwrap();
    // And now it can be.
    run.disk.write(at, CLUSTER, 7).unwrap();
    assert!(run.disk.read(0, 8).unwrap().iter().all(|value| *value == 0));
}
