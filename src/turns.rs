//! Requests that overlap take turns, on disks that several machines share.
//!
//! One machine's driver does not care: it asks for no sector that it is just writing. Machines that share a disk may,
//! as when one watches the heartbeat of another; so of requests that overlap, one of which writes, the later one begins
//! when the earlier one has been answered. Then no sector is seen half written, and after the end of the process no
//! request that was in flight is done again over what another machine has written since.
//!
//! A request waits only for those that came before it, so none waits for ever and no two wait for each other.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::units::SectorRange;

/// All requests in flight on a disk.
///
/// The sectors that they touch are divided into spans, so that a request touches all of a span or nothing of it. Each span
/// has those whose turn there has come, and a line of those that wait. So what it costs to queue and to end a request depends
/// on its spans, of which it has at most as many as sectors, and on those that it lets in: not on how many wait.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Spans>);

/// By their first sectors. What nobody touches is in none.
type Spans = BTreeMap<u64, Span>;

#[derive(Clone, Debug)]
struct Span {
    end: u64,
    /// Requests whose turn has come here: one that writes, or some that read.
    present: u32,
    written: bool,
    line: VecDeque<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    place: Arc<Place>,
    writes: bool,
}

/// Of a request that has to wait.
#[derive(Debug, Default)]
struct Place {
    /// Lines in which it stands. Changes only under the lock.
    lines: AtomicU32,
    /// To be written to when it stands in none any more.
    wake: OnceLock<Arc<EventFd>>,
}

/// A request's place; to be given back with [`Turns::end`].
#[derive(Debug)]
#[must_use = "a turn that is not ended holds up all that come after it"]
pub struct Turn {
    first: Range<u64>,
    /// Further sectors, none of them twice.
    more: Vec<Range<u64>>,
    /// None: nobody was in its way.
    place: Option<Arc<Place>>,
}

impl Turn {
    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        std::iter::once(&self.first).chain(&self.more).cloned()
    }
}

impl Turns {
    /// Takes a place behind all requests that there are; none if there are no ranges.
    pub fn queue(&self, ranges: impl IntoIterator<Item = SectorRange>, writes: bool) -> Option<Turn> {
        let (first, more) = merge(ranges)?;
        let mut place = None;
        let mut spans = self.lock();
        for range in std::iter::once(&first).chain(&more) {
            split(&mut spans, range.start);
            split(&mut spans, range.end);
            let mut at = range.start;
            while at < range.end {
                let next = spans.range_mut(at..range.end).next();
                match next {
                    Some((start, span)) if *start == at => {
                        span.queue(&mut place, writes);
                        at = span.end;
                    }
                    other => {
                        let end = other.map_or(range.end, |(start, _)| *start);
                        spans.insert(at, Span::new(end, writes));
                        at = end;
                    }
                }
            }
        }
        Some(Turn { first, more, place })
    }

    /// Whether its turn has come; if not, `wake` is written to when it has. It must be the same each time.
    pub fn has_come(&self, turn: &Turn, wake: &Arc<EventFd>) -> bool {
        let Some(place) = &turn.place else {
            return true;
        };
        if place.has_come() {
            return true;
        }
        if place.wake.get().is_none() {
            // A request that ends lets this one in under the same lock, and so sees `wake`.
            let _spans = self.lock();
            place.wake.get_or_init(|| wake.clone());
        }
        place.has_come()
    }

    /// The request has been answered.
    pub fn end(&self, turn: Turn) {
        let mut woken = Vec::new();
        let mut spans = self.lock();
        let waits = turn.place.as_ref().filter(|place| !place.has_come());
        for range in turn.ranges() {
            let mut at = range.start;
            while let Some((&start, span)) = spans.range_mut(at..range.end).next() {
                at = span.end;
                span.leave(waits);
                span.let_in(&mut woken);
                if span.present == 0 {
                    spans.remove(&start);
                }
            }
        }
        drop(spans);
        for wake in woken {
            // Fails only when the counter is full, and then it is being woken already.
            let _ = wake.write(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spans> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn has_come(&self) -> bool {
        self.lines.load(Ordering::Acquire) == 0
    }
}

impl Span {
    fn new(end: u64, written: bool) -> Self {
        Span {
            end,
            present: 1,
            written,
            line: VecDeque::new(),
        }
    }

    fn queue(&mut self, place: &mut Option<Arc<Place>>, writes: bool) {
        if self.line.is_empty() && !self.written && !writes {
            self.present += 1;
            return;
        }
        let place = place.get_or_insert_default().clone();
        place.lines.fetch_add(1, Ordering::Relaxed);
        self.line.push_back(Waiting { place, writes });
    }

    /// One goes that is present here, or that waits, here or elsewhere.
    fn leave(&mut self, waits: Option<&Arc<Place>>) {
        let is_it = |place| {
            self.line
                .iter()
                .position(|other| Arc::ptr_eq(&other.place, place))
        };
        match waits.and_then(is_it) {
            Some(at) => drop(self.line.remove(at)),
            None => self.present -= 1,
        }
    }

    /// Lets in the requests whose turn it is. Collects the descriptors to write to, each once.
    fn let_in(&mut self, woken: &mut Vec<Arc<EventFd>>) {
        while let Some(next) = self.line.front() {
            if self.present > 0 && (self.written || next.writes) {
                return;
            }
            self.present += 1;
            self.written = next.writes;
            let is_last = next.place.lines.fetch_sub(1, Ordering::Release) == 1;
            if is_last
                && let Some(wake) = next.place.wake.get()
                && !woken.iter().any(|other| Arc::ptr_eq(other, wake))
            {
                woken.push(wake.clone());
            }
            self.line.pop_front();
        }
    }
}

/// Has a span begin at `at`, if one goes beyond it.
fn split(spans: &mut Spans, at: u64) {
    let Some((_, span)) = spans
        .range_mut(..at)
        .next_back()
        .filter(|(_, span)| span.end > at)
    else {
        return;
    };
    let rest = span.clone();
    span.end = at;
    for waiting in &rest.line {
        waiting.place.lines.fetch_add(1, Ordering::Relaxed);
    }
    spans.insert(at, rest);
}

/// The sectors of all ranges, each once.
fn merge(ranges: impl IntoIterator<Item = SectorRange>) -> Option<(Range<u64>, Vec<Range<u64>>)> {
    let bounds = |range: SectorRange| range.start().0..range.start().0 + range.count();
    let mut ranges = ranges.into_iter().map(bounds).filter(|range| !range.is_empty());
    let first = ranges.next()?;
    let mut more: Vec<_> = ranges.collect();
    if more.is_empty() {
        return Some((first, more));
    }
    more.push(first);
    more.sort_by_key(|range| range.start);
    more.dedup_by(|next, last| {
        let meet = next.start <= last.end;
        if meet {
            last.end = last.end.max(next.end);
        }
        meet
    });
    Some((more.pop()?, more))
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
        assert!(!turns.has_come(&write, &woken), "for the other reader");
        assert!(woken.read().is_err(), "nobody's turn has come");
        turns.end(also);
        assert_eq!(woken.read().unwrap(), 1);
        assert!(turns.has_come(&write, &woken) && !turns.has_come(&late, &woken));
        turns.end(write);
        assert!(turns.has_come(&late, &woken));
        turns.end(late);
        turns.end(beside);
        assert!(turns.lock().is_empty());
        assert!(turns.queue([range(5, 0)], true).is_none());
    }

    /// Nobody else is woken than whose turn has come, and a worker once, however many of his requests wait.
    #[test]
    fn only_who_can_go_on_is_woken() {
        let turns = Turns::default();
        let workers: [_; 16] = std::array::from_fn(|_| wake());
        let woken = || -> Vec<u64> { workers.iter().map(|worker| worker.read().unwrap_or(0)).collect() };
        let queue = |writes| {
            let turn = turns.queue([range(0, 8)], writes).unwrap();
            (turn, &workers[0])
        };
        let mut line: VecDeque<_> = (0..1024).map(|_| queue(true)).collect();
        for (number, (turn, worker)) in line.iter_mut().enumerate() {
            *worker = &workers[number % 16];
            assert_eq!(turns.has_come(turn, worker), number == 0);
        }
        let readers: Vec<_> = (0..1024).map(|_| queue(false).0).collect();
        for (number, turn) in readers.iter().enumerate() {
            assert!(!turns.has_come(turn, &workers[number % 16]));
        }
        while let Some((turn, _)) = line.pop_front() {
            turns.end(turn);
            let expected: Vec<u64> = match line.front() {
                Some((next, worker)) => {
                    assert!(turns.has_come(next, worker));
                    workers
                        .iter()
                        .map(|other| u64::from(Arc::ptr_eq(other, worker)))
                        .collect()
                }
                None => vec![1; 16],
            };
            assert_eq!(woken(), expected);
        }
        for turn in readers {
            assert!(turns.has_come(&turn, &workers[0]));
            turns.end(turn);
        }
        assert!(turns.lock().is_empty());
    }

    /// As one whose queue breaks down.
    #[test]
    fn who_goes_before_his_turn_has_come_holds_up_nobody() {
        let turns = Turns::default();
        let woken = wake();
        let read = turns.queue([range(0, 8)], false).unwrap();
        let write = turns.queue([range(4, 8)], true).unwrap();
        let also = turns.queue([range(0, 16)], false).unwrap();
        assert!(!turns.has_come(&write, &woken) && !turns.has_come(&also, &woken));
        turns.end(write);
        assert!(woken.read().is_ok() && turns.has_come(&also, &woken));
        turns.end(read);
        turns.end(also);
        assert!(turns.lock().is_empty());
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
                            let overlap = |one: &Range<u64>, two: &Range<u64>| one.start < two.end && two.start < one.end;
                            let meet = turn.ranges().any(|one| other.ranges().any(|two| overlap(&one, &two)));
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
            prop_assert!(turns.lock().is_empty());
        }
    }
}
