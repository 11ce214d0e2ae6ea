//! Requests that overlap take turns, on disks that several machines share.
//!
//! One machine's driver does not care: nobody asks for a sector that he is just writing. Machines that share a disk may,
//! as when one watches the heartbeat of another; so of requests that overlap, one of which writes, the later one begins
//! when the earlier one has been answered. Then no sector is seen half written, and after the end of the process no
//! request that was in flight is done again over what somebody else has written since.
//!
//! A request waits only for those that came before it, so none waits for ever and no two wait for each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::units::SectorRange;

/// Sectors of a chunk of the disk, by which requests are found: 1 MiB.
const CHUNK_SECTORS: u64 = 2048;

/// All requests in flight on a disk.
#[derive(Debug, Default)]
pub struct Turns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In each chunk, those that touch it, oldest first.
    chunks: HashMap<u64, Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    range: SectorRange,
    writes: bool,
    /// Who waits, to be told to look again.
    wake: Option<Arc<EventFd>>,
}

/// A request's place; to be given back with [`Turns::end`].
#[derive(Debug)]
#[must_use = "a turn that is not ended holds up all that come after it"]
pub struct Turn {
    number: u64,
    first: SectorRange,
    more: Vec<SectorRange>,
}

impl Turn {
    fn ranges(&self) -> impl Iterator<Item = SectorRange> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

impl Turns {
    /// Takes a place behind all requests that there are; none if there are no ranges.
    pub fn queue(&self, ranges: impl IntoIterator<Item = SectorRange>, writes: bool) -> Option<Turn> {
        let mut ranges = ranges.into_iter().filter(|range| range.count() > 0);
        let first = ranges.next()?;
        let more = ranges.collect();
        let mut state = self.lock();
        let turn = Turn {
            number: state.next,
            first,
            more,
        };
        state.next += 1;
        for range in turn.ranges() {
            for chunk in chunks(range) {
                state.chunks.entry(chunk).or_default().push(Place {
                    number: turn.number,
                    range,
                    writes,
                    wake: None,
                });
            }
        }
        Some(turn)
    }

    /// Whether its turn has come; if not, `wake` is written to when it is time to ask again.
    pub fn has_come(&self, turn: &Turn, wake: &Arc<EventFd>) -> bool {
        let mut state = self.lock();
        for range in turn.ranges() {
            for chunk in chunks(range) {
                let Some(places) = state.chunks.get_mut(&chunk) else {
                    continue;
                };
                let own = |place: &Place| place.number == turn.number && place.range == range;
                let Some(at) = places.iter().position(own) else {
                    continue;
                };
                let (before, rest) = places.split_at_mut(at);
                let blocks = |other: &Place| {
                    other.number < turn.number
                        && (other.writes || rest[0].writes)
                        && overlap(other.range, range)
                };
                if before.iter().any(blocks) {
                    rest[0].wake = Some(wake.clone());
                    return false;
                }
            }
        }
        true
    }

    /// The request has been answered.
    pub fn end(&self, turn: Turn) {
        let mut state = self.lock();
        for range in turn.ranges() {
            for chunk in chunks(range) {
                let Entry::Occupied(mut places) = state.chunks.entry(chunk) else {
                    continue;
                };
                places.get_mut().retain(|place| place.number != turn.number);
                for place in places.get_mut() {
                    if let Some(wake) = place.wake.take() {
                        // Fails only when the counter is full, and then it is being woken already.
                        let _ = wake.write(1);
                    }
                }
                if places.get().is_empty() {
                    places.remove();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn chunks(range: SectorRange) -> std::ops::RangeInclusive<u64> {
    let first = range.start().0;
    first / CHUNK_SECTORS..=(first + range.count() - 1) / CHUNK_SECTORS
}

fn overlap(one: SectorRange, other: SectorRange) -> bool {
    let end = |range: SectorRange| range.start().0 + range.count();
    one.start().0 < end(other) && other.start().0 < end(one)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

    use super::*;
    use crate::units::Capacity;

    fn range(start: u64, count: u64) -> SectorRange {
        Capacity::LARGEST.range(start, count).unwrap()
    }

    fn wake() -> Arc<EventFd> {
        Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap())
    }

    #[test]
    fn who_overlaps_waits_and_is_woken() {
        let turns = Turns::default();
        let woken = wake();
        let read = turns.queue([range(2040, 20)], false).unwrap();
        let also = turns.queue([range(2050, 8)], false).unwrap();
        assert!(turns.has_come(&read, &woken) && turns.has_come(&also, &woken));
        let write = turns.queue([range(0, 1), range(2055, 1)], true).unwrap();
        let beside = turns.queue([range(2060, 8)], true).unwrap();
        // A later reader does not overtake a writer that waits.
        let late = turns.queue([range(2055, 1)], false).unwrap();
        assert!(turns.has_come(&beside, &woken));
        assert!(!turns.has_come(&write, &woken) && !turns.has_come(&late, &woken));
        assert!(woken.read().is_err());
        turns.end(read);
        assert!(woken.read().is_ok(), "to look again");
        assert!(!turns.has_come(&write, &woken), "for the other reader");
        turns.end(also);
        assert!(turns.has_come(&write, &woken) && !turns.has_come(&late, &woken));
        turns.end(write);
        assert!(turns.has_come(&late, &woken));
        turns.end(late);
        turns.end(beside);
        assert!(turns.lock().chunks.is_empty());
        assert!(turns.queue([range(5, 0)], true).is_none());
    }

    proptest! {
        /// Of those whose turn has come no two overlap if one writes; and somebody's has always come.
        #[test]
        fn nobody_is_in_the_way_of_another(
            requests in proptest::collection::vec(
                (proptest::collection::vec((0u64..6000, 0u64..3000), 1..3), any::<bool>()),
                1..30,
            ),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 30),
        ) {
            let turns = Turns::default();
            let woken = wake();
            let mut waiting = Vec::new();
            let mut present: Vec<(Turn, bool)> = Vec::new();
            for (ranges, writes) in requests {
                let ranges = ranges.into_iter().map(|(start, count)| range(start, count));
                waiting.extend(turns.queue(ranges, writes).map(|turn| (turn, writes)));
            }
            let mut picks = picks.iter().cycle();
            while !waiting.is_empty() || !present.is_empty() {
                let mut still = Vec::new();
                for (turn, writes) in waiting {
                    if turns.has_come(&turn, &woken) {
                        for (other, other_writes) in &present {
                            let meet = turn.ranges().any(|one| other.ranges().any(|two| overlap(one, two)));
                            prop_assert!(!meet || !(writes || *other_writes));
                        }
                        present.push((turn, writes));
                    } else {
                        still.push((turn, writes));
                    }
                }
                waiting = still;
                prop_assert!(!present.is_empty(), "nobody's turn has come");
                let _ = woken.read();
                let (turn, _) = present.swap_remove(picks.next().unwrap().index(present.len()));
                turns.end(turn);
            }
            prop_assert!(turns.lock().chunks.is_empty());
        }
    }
}
