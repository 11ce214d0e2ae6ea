//! Memory in pieces: private buffers, and the guest's, which the guest may change at any time.
//!
//! Guest memory is never borrowed as a slice. It is touched through raw pointers only: by the copies in here, and by the
//! kernels.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use aes::cipher::inout::InOutBuf;
use vm_memory::VolatileSlice;

use crate::units::SECTOR_BYTES;

/// A sector's bytes; what pointers to whole sectors point to.
pub(super) type SectorBytes = [u8; SECTOR_BYTES];

/// A piece of memory to read from.
pub struct Source<'m> {
    start: *const u8,
    len: usize,
    memory: PhantomData<&'m [u8]>,
}

/// A piece of memory to write to.
pub struct Destination<'m> {
    start: *mut u8,
    len: usize,
    memory: PhantomData<&'m mut [u8]>,
}

impl<'m> From<&'m [u8]> for Source<'m> {
    fn from(private: &'m [u8]) -> Self {
        Source {
            start: private.as_ptr(),
            len: private.len(),
            memory: PhantomData,
        }
    }
}

impl<'m> From<&'m mut [u8]> for Destination<'m> {
    fn from(private: &'m mut [u8]) -> Self {
        Destination {
            start: private.as_mut_ptr(),
            len: private.len(),
            memory: PhantomData,
        }
    }
}

// Without vm-memory's Xen support the guards are empty: the pointers are valid as long as the mapping, for 'm.

impl<'m> From<VolatileSlice<'m>> for Source<'m> {
    fn from(shared: VolatileSlice<'m>) -> Self {
        Source {
            start: shared.ptr_guard().as_ptr(),
            len: shared.len(),
            memory: PhantomData,
        }
    }
}

impl<'m> From<VolatileSlice<'m>> for Destination<'m> {
    fn from(shared: VolatileSlice<'m>) -> Self {
        Destination {
            start: shared.ptr_guard_mut().as_ptr(),
            len: shared.len(),
            memory: PhantomData,
        }
    }
}

/// What the two kinds of pieces have in common.
pub(super) trait Piece {
    fn len(&self) -> usize;
    /// Takes `count` bytes off the front; there must be as many.
    fn take(&mut self, count: usize) -> Self;
}

impl Piece for Source<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn take(&mut self, count: usize) -> Self {
        assert!(count <= self.len);
        let front = Source { len: count, ..*self };
        self.start = self.start.wrapping_add(count);
        self.len -= count;
        front
    }
}

impl Piece for Destination<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn take(&mut self, count: usize) -> Self {
        assert!(count <= self.len);
        let front = Destination { len: count, ..*self };
        self.start = self.start.wrapping_add(count);
        self.len -= count;
        front
    }
}

/// Pieces one after the other, as one stream of bytes.
pub(super) struct Stream<I: Iterator> {
    piece: Option<I::Item>,
    rest: I,
}

/// A stream has ended before it should.
#[derive(Debug)]
pub(super) struct EndsEarly;

impl<I: Iterator<Item: Piece>> Stream<I> {
    pub(super) fn new(pieces: impl IntoIterator<IntoIter = I>) -> Self {
        Stream {
            piece: None,
            rest: pieces.into_iter(),
        }
    }

    /// The next `most` bytes, or as many of them as are in one piece: at least one.
    fn next_piece(&mut self, most: usize) -> Result<I::Item, EndsEarly> {
        let here = self.contiguous()?;
        let piece = self.piece.as_mut().ok_or(EndsEarly)?;
        Ok(piece.take(most.min(here)))
    }

    /// How many of the next bytes are in one piece: at least one.
    fn contiguous(&mut self) -> Result<usize, EndsEarly> {
        loop {
            match &self.piece {
                Some(piece) if piece.len() > 0 => return Ok(piece.len()),
                _ => self.piece = Some(self.rest.next().ok_or(EndsEarly)?),
            }
        }
    }
}

impl<'m, I: Iterator<Item = Source<'m>>> Stream<I> {
    /// Fills private memory with the next bytes.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), EndsEarly> {
        let mut done = 0;
        while done < into.len() {
            let piece = self.next_piece(into.len() - done)?;
            let part = &mut into[done..done + piece.len];
            // SAFETY: the piece is readable for 'm, `part` is as long, and private memory is not in any piece. What a
            // guest writes meanwhile only decides which bytes are copied.
            unsafe { piece.start.copy_to_nonoverlapping(part.as_mut_ptr(), part.len()) };
            done += piece.len;
        }
        Ok(())
    }
}

impl<'m, I: Iterator<Item = Destination<'m>>> Stream<I> {
    /// Writes all of private memory to the next bytes.
    pub(super) fn write(&mut self, from: &[u8]) -> Result<(), EndsEarly> {
        let mut done = 0;
        while done < from.len() {
            let piece = self.next_piece(from.len() - done)?;
            let part = &from[done..done + piece.len];
            // SAFETY: the piece is writable for 'm, `part` is as long, and private memory is not in any piece.
            unsafe { piece.start.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            done += piece.len;
        }
        Ok(())
    }
}

/// Whole sectors on their way from one place to another, or to the very same.
pub(super) struct Run<'m> {
    source: *const SectorBytes,
    destination: *mut SectorBytes,
    sectors: usize,
    memory: PhantomData<&'m mut [u8]>,
}

impl<'m> Run<'m> {
    /// As many whole sectors, at most `most`, as are next in one piece of either stream. None: the next sector is split.
    pub(super) fn next_of<'s: 'm, 'd: 'm>(
        source: &mut Stream<impl Iterator<Item = Source<'s>>>,
        destination: &mut Stream<impl Iterator<Item = Destination<'d>>>,
        most: usize,
    ) -> Result<Option<Self>, EndsEarly> {
        let contiguous = source.contiguous()?.min(destination.contiguous()?);
        let sectors = most.min(contiguous / SECTOR_BYTES);
        if sectors == 0 {
            return Ok(None);
        }
        let source = source.next_piece(sectors * SECTOR_BYTES)?;
        let destination = destination.next_piece(sectors * SECTOR_BYTES)?;
        Ok(Some(Run {
            source: source.start.cast(),
            destination: destination.start.cast(),
            sectors,
            memory: PhantomData,
        }))
    }

    /// The whole sectors of private memory; what is left of a last one is left out.
    pub(super) fn of(private: InOutBuf<'_, 'm, u8>) -> Self {
        let sectors = private.len() / SECTOR_BYTES;
        let (source, destination) = private.into_raw();
        Run {
            source: source.cast(),
            destination: destination.cast(),
            sectors,
            memory: PhantomData,
        }
    }

    pub(super) fn sectors(&self) -> usize {
        self.sectors
    }

    /// Readable for all [`Run::sectors`], not aligned.
    pub(super) fn source(&self) -> *const SectorBytes {
        self.source
    }

    /// Writable for all [`Run::sectors`], not aligned.
    pub(super) fn destination(&self) -> *mut SectorBytes {
        self.destination
    }

    /// Takes at most `most` sectors off the front.
    pub(super) fn take(&mut self, most: usize) -> Self {
        let sectors = most.min(self.sectors);
        let front = Run { sectors, ..*self };
        self.source = self.source.wrapping_add(sectors);
        self.destination = self.destination.wrapping_add(sectors);
        self.sectors -= sectors;
        front
    }

    /// Copies the sectors out of their source.
    pub(super) fn read(&self, into: &mut [SectorBytes]) {
        assert_eq!(into.len(), self.sectors);
        // SAFETY: the source is readable for this many sectors, whose type has no alignment; the lengths are equal, and
        // no piece is in the caller's memory.
        unsafe {
            self.source
                .copy_to_nonoverlapping(into.as_mut_ptr(), self.sectors)
        };
    }

    /// Copies sectors to their destination.
    pub(super) fn write(&self, from: &[SectorBytes]) {
        assert_eq!(from.len(), self.sectors);
        // SAFETY: as in `read`, and the destination is writable.
        unsafe {
            self.destination
                .copy_from_nonoverlapping(from.as_ptr(), self.sectors)
        };
    }
}
