//! A request while it is in flight, and what its next part is.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::disk::Disk;
use crate::store::BLOCK_SECTORS;
use crate::turns::Turn;
use crate::units::SectorRange;
use crate::virtqueue::{Cursor, Request, RequestType, Token};

/// A request in flight; there is one for each possible head.
#[derive(Default)]
pub(super) struct InFlight {
    pub(super) token: Option<Token>,
    pub(super) request: Request,
    /// What is being started: all of a read or write, a segment of a discard or write-zeroes.
    pub(super) range: Option<SectorRange>,
    /// Which segment.
    pub(super) segment: usize,
    /// Sectors of `range` that were started, and where in the guest's buffers they end.
    pub(super) started: u64,
    pub(super) cursor: Cursor,
    pub(super) outstanding: u32,
    pub(super) failed: bool,
    /// The request has failed for want of room on the host, and for nothing else.
    pub(super) no_room: bool,
    /// The request has been held until there was room.
    pub(super) was_held: bool,
    /// Not every part of the request is started.
    pub(super) queued: bool,
    /// Its turn among overlapping requests, if it has to wait for one of them or one waits for it.
    pub(super) turn: Option<Turn>,
    /// Its turn has come.
    pub(super) may_start: bool,
    /// Its part of the worker's `waiting_bytes`.
    pub(super) waiting_bytes: u64,
}

/// How a part has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    /// The host has no room for it.
    NoRoom,
    Failed,
}

/// The next part of a request, as long as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubRequest {
    /// To be read into the guest's buffers.
    Read(SectorRange),
    /// To be written.
    Write(SectorRange),
    /// Whole blocks, to read as zeros from now on.
    Discard(SectorRange),
}

impl InFlight {
    /// What is to be started next. None: nothing more, or it has failed.
    pub(super) fn next_subrequest(&mut self) -> Option<SubRequest> {
        while !self.failed {
            let range = self.range?;
            let rest = range.slice(self.started, u64::MAX);
            if rest.count() == 0 {
                self.segment += 1;
                self.started = 0;
                self.range = self.request.segments.get(self.segment).copied();
                continue;
            }
            let (first, whole) = whole_blocks_or_edge(rest);
            match self.request.operation {
                RequestType::Read(_) => return Some(SubRequest::Read(rest)),
                RequestType::Write(_) => return Some(SubRequest::Write(rest)),
                RequestType::Discard | RequestType::WriteZeroes if whole => {
                    return Some(SubRequest::Discard(first));
                }
                RequestType::WriteZeroes => return Some(SubRequest::Write(first)),
                // What is discarded is rounded inward.
                RequestType::Discard => self.started += first.count(),
                RequestType::Flush | RequestType::GetId | RequestType::Answer(_) => return None,
            }
        }
        None
    }

    /// A part has failed.
    pub(super) fn fail(&mut self, no_room: bool) {
        self.no_room = no_room && (self.no_room || !self.failed);
        self.failed = true;
    }

    /// The first `count` sectors of the next part are under way, or done.
    pub(super) fn advance(&mut self, count: u64) {
        self.started += count;
    }

    pub(super) fn begin(&mut self, range: Option<SectorRange>, waiting_bytes: u64) {
        self.range = range;
        self.segment = 0;
        self.started = 0;
        self.outstanding = 0;
        self.cursor = Cursor::default();
        self.queued = true;
        self.may_start = self.turn.is_none();
        self.waiting_bytes = waiting_bytes;
    }

    /// Whether nothing that came before is in the way; if something is, `wake` is written to when that has changed.
    pub(super) fn may_start(&mut self, disk: &Disk, wake: &Arc<EventFd>) -> bool {
        if !self.may_start {
            let (Some(turns), Some(turn)) = (disk.turns(), &self.turn) else {
                return true;
            };
            self.may_start = turns.has_come(turn, wake);
        }
        self.may_start
    }
}

/// What of a segment is not whole blocks.
pub(super) fn edges(segment: SectorRange) -> impl Iterator<Item = SectorRange> {
    let (first, whole) = whole_blocks_or_edge(segment);
    let head = if whole { 0 } else { first.count() };
    let rest = segment.slice(head, u64::MAX);
    let tail = rest.count() % BLOCK_SECTORS;
    [segment.slice(0, head), rest.slice(rest.count() - tail, tail)].into_iter()
}

/// The beginning of `rest` that is whole blocks (then true), or else within a block of which it is a part.
fn whole_blocks_or_edge(rest: SectorRange) -> (SectorRange, bool) {
    let before = rest.start().0 % BLOCK_SECTORS;
    if before == 0 && rest.count() >= BLOCK_SECTORS {
        (rest.slice(0, rest.count() - rest.count() % BLOCK_SECTORS), true)
    } else {
        (rest.slice(0, BLOCK_SECTORS - before), false)
    }
}

/// Requests that have found no room on the host, and are held until there is.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) heads: Vec<u16>,
    /// The round in which the last one was tried.
    pub(super) round: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Capacity;

    fn parts(operation: RequestType, segments: &[SectorRange], steps: &[u64]) -> Vec<SubRequest> {
        let mut in_flight = InFlight::default();
        in_flight.request.operation = operation;
        in_flight.request.segments = segments.to_vec();
        in_flight.begin(segments.first().copied(), 0);
        let mut steps = steps.iter().cycle();
        let mut parts = Vec::new();
        while let Some(part) = in_flight.next_subrequest() {
            let (SubRequest::Read(range) | SubRequest::Write(range) | SubRequest::Discard(range)) = part;
            // What is done at once need not be all; of whole blocks it is whole blocks.
            let done = match part {
                SubRequest::Discard(_) => range.slice(0, steps.next().unwrap() * BLOCK_SECTORS),
                _ => range.slice(0, *steps.next().unwrap()),
            };
            in_flight.advance(done.count());
            parts.push(match part {
                SubRequest::Read(_) => SubRequest::Read(done),
                SubRequest::Write(_) => SubRequest::Write(done),
                SubRequest::Discard(_) => SubRequest::Discard(done),
            });
        }
        parts
    }

    proptest! {
        #[test]
        fn segments_become_whole_blocks_and_edges(
            segments in proptest::collection::vec((0u64..1000, 1u64..200), 0..5),
            steps in proptest::collection::vec(1u64..30, 1..8),
        ) {
            let segments: Vec<SectorRange> = segments
                .into_iter()
                .map(|(start, count)| Capacity::LARGEST.range(start, count).unwrap())
                .collect();
            let sectors = |range: SectorRange| range.start().0..range.start().0 + range.count();
            let (mut zeroed, mut written) = (Vec::new(), Vec::new());
            for part in parts(RequestType::WriteZeroes, &segments, &steps) {
                match part {
                    SubRequest::Discard(range) => {
                        prop_assert!(range.start().0.is_multiple_of(8) && range.count().is_multiple_of(8));
                        zeroed.extend(sectors(range));
                    }
                    SubRequest::Write(range) => {
                        prop_assert!(range.count() < 8);
                        zeroed.extend(sectors(range));
                        written.extend(sectors(range));
                    }
                    SubRequest::Read(_) => prop_assert!(false),
                }
            }
            let all: Vec<u64> = segments.iter().flat_map(|segment| sectors(*segment)).collect();
            prop_assert_eq!(zeroed, all);
            let edges = segments.iter().copied().flat_map(edges).flat_map(sectors);
            prop_assert_eq!(written, edges.collect::<Vec<u64>>());

            let mut discarded = Vec::new();
            for part in parts(RequestType::Discard, &segments, &steps) {
                match part {
                    SubRequest::Discard(range) => discarded.extend(sectors(range)),
                    _ => prop_assert!(false),
                }
            }
            let inward = segments.iter().flat_map(|segment| {
                let range = sectors(*segment);
                let start = range.start.next_multiple_of(8);
                start..(range.end - range.end % 8).max(start)
            });
            prop_assert_eq!(discarded, inward.collect::<Vec<u64>>());
        }
    }
}
