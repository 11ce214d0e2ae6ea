//! Tests of the epochs, on one thread. What threads may see of each other: `tests/loom_map/main.rs`.

use std::collections::BTreeMap;

use super::epoch::{Epochs, Pass};
use crate::limits::{MAX_QUEUE_SIZE, MAX_QUEUES};
use proptest::prelude::*;

#[test]
fn an_epoch_settles_when_its_passes_and_all_earlier_ones_have_ended() {
    let epochs = Epochs::new(2);
    assert!(epochs.settled(0));
    assert!(!epochs.settled(1), "it has not begun");
    let first = epochs.enter();
    assert_eq!(epochs.try_advance(), Some(1));
    let second = epochs.enter();
    assert_eq!(epochs.try_advance(), Some(2));
    assert_eq!(epochs.current(), 2);
    assert!(epochs.settled(0) && !epochs.settled(1) && !epochs.settled(2));
    epochs.exit(second);
    assert!(!epochs.settled(1) && !epochs.settled(2), "the first is in flight");
    epochs.exit(first);
    assert!(epochs.settled(1) && epochs.settled(2) && !epochs.settled(3));
}

#[test]
fn a_pass_of_the_fourth_last_epoch_stops_the_advance() {
    let epochs = Epochs::new(1);
    let pass = epochs.enter();
    for epoch in 1..=3 {
        assert_eq!(epochs.try_advance(), Some(epoch));
    }
    assert_eq!(epochs.try_advance(), None);
    assert_eq!(epochs.current(), 3);
    epochs.exit(pass);
    assert_eq!(epochs.try_advance(), Some(4));
}

#[test]
fn a_pass_may_end_on_another_thread() {
    let epochs = Epochs::new(4);
    let passes: Vec<Pass> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| epochs.enter())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(epochs.try_advance(), Some(1));
    for pass in passes {
        assert!(!epochs.settled(1));
        epochs.exit(pass);
    }
    assert!(epochs.settled(1));
}

#[test]
fn passes_of_one_thread_overflow_to_other_shards() {
    let epochs = Epochs::new(3);
    let passes: Vec<Pass> = (0..(3 * 32_767)).map(|_| epochs.enter()).collect();
    let full = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| epochs.enter()));
    assert!(full.is_err());
    assert_eq!(epochs.try_advance(), Some(1));
    let later = epochs.enter();
    for pass in passes {
        assert!(!epochs.settled(1));
        epochs.exit(pass);
    }
    assert!(epochs.settled(1));
    epochs.exit(later);
}

#[test]
fn one_shard_can_count_what_all_queues_of_a_session_hold() {
    let epochs = Epochs::new(1);
    let most = usize::from(MAX_QUEUES) * usize::from(MAX_QUEUE_SIZE);
    for epoch in 1..=4 {
        let passes: Vec<Pass> = (0..most).map(|_| epochs.enter()).collect();
        assert_eq!(epochs.try_advance(), Some(epoch));
        assert!(!epochs.settled(epoch));
        passes.into_iter().for_each(|pass| epochs.exit(pass));
        assert!(epochs.settled(epoch));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    Exit(prop::sample::Index),
    Advance,
}

proptest! {
    #[test]
    fn epochs_are_as_the_model(steps in prop::collection::vec(
        prop_oneof![Just(Step::Enter), any::<prop::sample::Index>().prop_map(Step::Exit), Just(Step::Advance)],
        0..200,
    )) {
        let epochs = Epochs::new(3);
        let mut current = 0;
        let mut passes: Vec<(u64, Pass)> = Vec::new();
        for step in steps {
            match step {
                Step::Enter => passes.push((current, epochs.enter())),
                Step::Exit(_) if passes.is_empty() => {}
                Step::Exit(index) => epochs.exit(passes.swap_remove(index.index(passes.len())).1),
                Step::Advance => {
                    let full = passes.iter().any(|(epoch, _)| epoch + 3 == current);
                    current += u64::from(!full);
                    prop_assert_eq!(epochs.try_advance(), (!full).then_some(current));
                }
            }
            prop_assert_eq!(epochs.current(), current);
            let settled: BTreeMap<u64, bool> = (0..=current + 1)
                .map(|epoch| (epoch, epoch <= current && passes.iter().all(|(pass, _)| *pass >= epoch)))
                .collect();
            for (epoch, expected) in settled {
                prop_assert_eq!(epochs.settled(epoch), expected, "epoch {} of {}", epoch, current);
            }
        }
    }
}
