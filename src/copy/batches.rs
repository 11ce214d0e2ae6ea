//! A copy, batch by batch.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;
use sealblk_proto::locked::lock_this_stack;
use sealblk_proto::message::{CopyPhase, CopyProgress, Failure, code};

use super::hand::{CHUNK_BYTES, Hand};
use super::holes::{Known, zeros_of};
use super::input::Input;
use crate::disk::Disk;
use crate::limits::WORKER_STACK_BYTES;
use crate::sandbox::{Kind, narrow};
use crate::store::layered::StoreState;
use crate::units::{Capacity, SECTOR_BYTES, SectorRange};

/// Threads that copy.
const HANDS: usize = 4;
/// A batch ends when so many bytes have been written, or after so long: what is done again, at most, after a crash.
const BATCH_BYTES: u64 = 64 << 20;
const BATCH_TIME: Duration = Duration::from_secs(2);
const CHUNK_SECTORS: u64 = (CHUNK_BYTES / SECTOR_BYTES) as u64;
/// How far zeros are looked for at a time, in sectors: 16 GiB, whole chunks. Between two looks a copy can be stopped.
const LOOK_AHEAD_SECTORS: u64 = (16 << 30) / SECTOR_BYTES as u64;

/// One copy, from where it is begun to its end.
pub struct Copy {
    source: Input,
    destination: Disk,
    clean: bool,
    /// The part of the destination that is written and compared.
    range: SectorRange,
    state: Mutex<State>,
    /// Bytes done in this phase.
    done: AtomicU64,
    stop: AtomicBool,
    /// Chunks that were not passed over.
    #[cfg(test)]
    visited: AtomicU64,
}

struct State {
    phase: CopyPhase,
    /// In bytes.
    position: u64,
    failure: Option<Failure>,
}

/// What is done between two positions.
struct Batch {
    /// From here on.
    rest: SectorRange,
    cursor: Mutex<Cursor>,
    /// Bytes that were written.
    written: AtomicU64,
    end: Instant,
}

/// How far a batch has come.
#[derive(Default)]
struct Cursor {
    /// Sectors that are passed over or taken.
    at: u64,
    source: Known,
    destination: Known,
}

impl Batch {
    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_enough(&self) -> bool {
        self.written.load(Ordering::Relaxed) >= BATCH_BYTES || Instant::now() >= self.end
    }
}

/// Why a copy does not go on.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("the {side} fails at byte {offset}")]
    Io {
        side: &'static str,
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error("the copy is not what its source is, at byte {0}: look for a failing medium, and copy again")]
    Differs(u64),
    #[error("threads or memory for the copy cannot be had")]
    System(#[source] io::Error),
    #[error("{source_bytes} bytes do not fit into {destination_bytes}")]
    TooLarge {
        source_bytes: u64,
        destination_bytes: u64,
    },
}

impl CopyError {
    fn failure(&self) -> Failure {
        let code = match self {
            CopyError::Differs(_) => code::COPY_DIFFERS,
            CopyError::TooLarge { .. } => code::INVALID_SIZE,
            CopyError::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => code::NO_SPACE,
            CopyError::Io { .. } => code::STORE_UNUSABLE,
            CopyError::System(_) => "CopyFailed",
        };
        Failure::new(code, with_causes(self))
    }
}

impl Copy {
    /// To go on in `phase`, `position` bytes from the beginning, with a source of some sectors. What the destination has beyond the end of the source
    /// becomes zeros. If it is `clean`, it reads zeros wherever this copy has not written, and is not written for zeros.
    ///
    /// # Errors
    /// A [`Failure`], if the source is larger than the destination.
    pub fn new(
        (source, from): (Input, Capacity),
        destination: Disk,
        phase: CopyPhase,
        position: u64,
        clean: bool,
    ) -> Result<Self, Failure> {
        let to = destination.capacity();
        let count = if clean { from } else { to }.sectors();
        let range = to.range(0, count.max(from.sectors())).map_err(|_| {
            let too_large = CopyError::TooLarge {
                source_bytes: from.bytes().0,
                destination_bytes: to.bytes().0,
            };
            too_large.failure()
        })?;
        Ok(Copy {
            source,
            destination,
            clean,
            range,
            state: Mutex::new(State {
                phase,
                position,
                failure: None,
            }),
            done: AtomicU64::new(position),
            stop: AtomicBool::new(false),
            #[cfg(test)]
            visited: AtomicU64::new(0),
        })
    }

    /// Copies and compares, until it is done, or has failed, or is to stop.
    pub fn run(&self) {
        if let Err(error) = self.go_on() {
            let failure = error.failure();
            log::error!("{failure}");
            self.state().failure = Some(failure);
        }
    }

    /// No further chunk is begun.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Closes both stores, of which nothing is copied any more; see [`crate::store::Store::close`]. The destination's state comes
    /// first.
    pub fn close(&self) -> (Option<StoreState>, Option<StoreState>) {
        let source = match &self.source {
            Input::Disk(disk) => disk.store().close(),
            Input::Image(_) => None,
        };
        (self.destination.store().close(), source)
    }

    /// How far it has come.
    pub fn progress(&self) -> CopyProgress {
        let state = self.state();
        CopyProgress {
            phase: state.phase,
            position: state.position,
            done: self.done.load(Ordering::Relaxed).min(self.range.bytes().0),
            total: self.range.bytes().0,
            failure: state.failure.clone(),
        }
    }

    fn go_on(&self) -> Result<(), CopyError> {
        let mut hands = (0..HANDS)
            .map(|_| Hand::new())
            .collect::<io::Result<Vec<_>>>()
            .map_err(CopyError::System)?;
        while !self.stop.load(Ordering::Acquire) {
            let (phase, position) = {
                let state = self.state();
                (state.phase, state.position)
            };
            match phase {
                CopyPhase::Done => return Ok(()),
                _ if position >= self.range.bytes().0 => self.next_phase(phase),
                _ => self.batch(&mut hands, phase, position)?,
            }
        }
        Ok(())
    }

    fn next_phase(&self, ended: CopyPhase) {
        let mut state = self.state();
        if ended == CopyPhase::Copy {
            state.phase = CopyPhase::Verify;
            state.position = 0;
            self.done.store(0, Ordering::Relaxed);
        } else {
            state.phase = CopyPhase::Done;
        }
    }

    /// One batch, from a position on, by all hands; then that is so far done for good.
    fn batch(&self, hands: &mut [Hand], phase: CopyPhase, position: u64) -> Result<(), CopyError> {
        let rest = self.range.slice(position / SECTOR_BYTES as u64, u64::MAX);
        let batch = Batch {
            rest,
            cursor: Mutex::default(),
            written: AtomicU64::new(0),
            end: Instant::now() + BATCH_TIME,
        };
        let (sender, outcomes) = mpsc::channel();
        std::thread::scope(|scope| {
            for hand in hands.iter_mut() {
                let (sender, batch) = (sender.clone(), &batch);
                let work = move || {
                    narrow(Kind::Copy);
                    let worked = lock_this_stack()
                        .map_err(CopyError::System)
                        .and_then(|()| self.chunks(hand, phase, batch));
                    // The receiver waits for just this.
                    let _ = sender.send(worked);
                };
                let thread = std::thread::Builder::new()
                    .name("copy".to_owned())
                    .stack_size(WORKER_STACK_BYTES);
                thread.spawn_scoped(scope, work).map_err(CopyError::System)?;
            }
            Ok(())
        })?;
        drop(sender);
        outcomes.iter().collect::<Result<(), _>>()?;
        // Every chunk that was taken has been done.
        let ended = batch.cursor().at;
        let offset = rest.start().offset();
        if batch.written.load(Ordering::Acquire) > 0 {
            let synced = self.destination.sync();
            synced.map_err(|error| failed("destination", offset, error))?;
        }
        self.state().position = offset + ended * SECTOR_BYTES as u64;
        Ok(())
    }

    fn chunks(&self, hand: &mut Hand, phase: CopyPhase, batch: &Batch) -> Result<(), CopyError> {
        let outcome = self.chunks_until_enough(hand, phase, batch);
        if outcome.is_err() {
            self.stop();
        }
        outcome
    }

    fn chunks_until_enough(&self, hand: &mut Hand, phase: CopyPhase, batch: &Batch) -> Result<(), CopyError> {
        while let Some(chunk) = self.next_chunk(hand, phase, batch)? {
            match phase {
                CopyPhase::Copy => {
                    let written = self.copy_chunk(hand, chunk)?;
                    batch.written.fetch_add(written, Ordering::AcqRel);
                }
                CopyPhase::Verify | CopyPhase::Done => self.compare_chunk(hand, chunk)?,
            }
            self.done.fetch_add(chunk.bytes().0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next chunk that is not passed over; none if the batch ends.
    fn next_chunk(
        &self,
        hand: &Hand,
        phase: CopyPhase,
        batch: &Batch,
    ) -> Result<Option<SectorRange>, CopyError> {
        let mut cursor = batch.cursor();
        while cursor.at < batch.rest.count() && !self.stop.load(Ordering::Acquire) && !batch.is_enough() {
            let ahead = batch.rest.slice(cursor.at, LOOK_AHEAD_SECTORS);
            let passed = self.idle_sectors(hand, phase, &mut cursor, ahead)?;
            if passed == 0 {
                let chunk = ahead.slice(0, CHUNK_SECTORS);
                cursor.at += chunk.count();
                #[cfg(test)]
                self.visited.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(chunk));
            }
            cursor.at += passed;
            let bytes = ahead.slice(0, passed).bytes().0;
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// The sectors of whole chunks at the beginning of `ahead` for which nothing is to be done: the source has zeros, and the
    /// destination, too, unless it is being copied to and is clean.
    fn idle_sectors(
        &self,
        hand: &Hand,
        phase: CopyPhase,
        cursor: &mut Cursor,
        ahead: SectorRange,
    ) -> Result<u64, CopyError> {
        let offset = ahead.start().offset();
        let whole = |zeros: u64| match zeros {
            zeros if zeros == ahead.count() => zeros,
            zeros => zeros - zeros % CHUNK_SECTORS,
        };
        let look = |ahead| self.source.zeros(ahead, hand.wake());
        let zeros = cursor.source.zeros(ahead, look);
        let idle = whole(zeros.map_err(|error| failed("source", offset, error))?);
        if idle == 0 || (self.clean && phase == CopyPhase::Copy) {
            return Ok(idle);
        }
        let look = |ahead| zeros_of(&self.destination, ahead, hand.wake());
        let zeros = cursor.destination.zeros(ahead.slice(0, idle), look);
        Ok(whole(
            zeros.map_err(|error| failed("destination", offset, error))?,
        ))
    }

    /// The bytes that were written.
    fn copy_chunk(&self, hand: &mut Hand, chunk: SectorRange) -> Result<u64, CopyError> {
        let offset = chunk.start().offset();
        hand.read_first(&self.source, chunk)
            .map_err(|error| failed("source", offset, error))?;
        hand.write_first(&self.destination, chunk, self.clean)
            .map_err(|error| failed("destination", offset, error))
    }

    fn compare_chunk(&self, hand: &mut Hand, chunk: SectorRange) -> Result<(), CopyError> {
        let offset = chunk.start().offset();
        hand.read_first(&self.source, chunk)
            .map_err(|error| failed("source", offset, error))?;
        hand.read_second(&self.destination, chunk)
            .map_err(|error| failed("destination", offset, error))?;
        match hand.first_difference(chunk) {
            Some(at) => Err(CopyError::Differs(offset + at as u64)),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(side: &'static str, offset: u64, source: io::Error) -> CopyError {
    CopyError::Io { side, offset, source }
}

#[cfg(test)]
mod tests;
