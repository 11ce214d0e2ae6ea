//! Copying the data of one disk to another that nobody serves: through the cipher of the one, and of the other.
//!
//! A pass goes over the data in batches, each of which several threads do together. A batch of copying ends with a sync:
//! then its end is a position from which a later process can go on, whatever has happened. The second pass reads both
//! sides again and compares them. Between the ciphers plaintext lies in locked memory and nowhere else.

mod hand;
mod image;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;
use sealblk_proto::locked::lock_this_stack;
use sealblk_proto::message::{CopyPhase, CopyProgress, Failure, code};

use self::hand::{CHUNK_BYTES, Hand};
pub use self::image::{Image, ImageError};
use crate::disk::Disk;
use crate::limits::WORKER_STACK_BYTES;
use crate::units::{Capacity, SECTOR_BYTES, SectorRange};

/// Threads that copy.
const HANDS: usize = 4;
/// A batch ends when so many bytes have been written, or after so long: what is done again, at most, after a crash.
const BATCH_BYTES: u64 = 64 << 20;
const BATCH_TIME: Duration = Duration::from_secs(2);
const CHUNK_SECTORS: u64 = (CHUNK_BYTES / SECTOR_BYTES) as u64;

/// What is copied from.
pub enum Input {
    /// A disk, or a file in which data lies as on one.
    Disk(Box<Disk>),
    /// An image of another program.
    Image(Box<Image>),
}

impl Input {
    /// A disk, and how large it is.
    pub fn of_disk(disk: Disk) -> (Self, Capacity) {
        let capacity = disk.capacity();
        (Input::Disk(Box::new(disk)), capacity)
    }
}

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
    /// Number of the next chunk.
    next: AtomicU64,
    /// Bytes that were written.
    written: AtomicU64,
    end: Instant,
}

impl Batch {
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
        let rest = self.range.part(position / SECTOR_BYTES as u64, u64::MAX);
        let batch = Batch {
            rest,
            next: AtomicU64::new(0),
            written: AtomicU64::new(0),
            end: Instant::now() + BATCH_TIME,
        };
        let (sender, outcomes) = mpsc::channel();
        std::thread::scope(|scope| {
            for hand in hands.iter_mut() {
                let (sender, batch) = (sender.clone(), &batch);
                let work = move || {
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
        let ended = (batch.next.load(Ordering::Acquire) * CHUNK_SECTORS).min(rest.count());
        let offset = rest.start().offset();
        if batch.written.load(Ordering::Acquire) > 0 {
            let synced = self.destination.sync();
            synced.map_err(|error| failed("destination", offset, error))?;
        }
        self.state().position = offset + ended * SECTOR_BYTES as u64;
        Ok(())
    }

    fn chunks(&self, hand: &mut Hand, phase: CopyPhase, batch: &Batch) -> Result<(), CopyError> {
        while !self.stop.load(Ordering::Acquire) && !batch.is_enough() {
            let skip = batch.next.fetch_add(1, Ordering::AcqRel) * CHUNK_SECTORS;
            if skip >= batch.rest.count() {
                break;
            }
            let chunk = batch.rest.part(skip, CHUNK_SECTORS);
            let outcome = match phase {
                CopyPhase::Copy => self.copy_chunk(hand, chunk).map(|written| {
                    batch.written.fetch_add(written, Ordering::AcqRel);
                }),
                CopyPhase::Verify | CopyPhase::Done => self.compare_chunk(hand, chunk),
            };
            if outcome.is_err() {
                self.stop();
                return outcome;
            }
            self.done.fetch_add(chunk.bytes().0, Ordering::Relaxed);
        }
        Ok(())
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

/// The sectors of a range that a disk has.
fn within(capacity: Capacity, range: SectorRange) -> u64 {
    capacity
        .sectors()
        .saturating_sub(range.start().0)
        .min(range.count())
}

#[cfg(test)]
mod tests;
