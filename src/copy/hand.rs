//! One thread's part of a copy: its memory, and the way of a chunk from one store to the other.

use std::io;
use std::sync::Arc;

use sealblk_proto::locked::Locked;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::file::{read_exact, read_some, write_all};
use super::input::Input;
use crate::crypto::{CryptoError, Destination, Source};
use crate::disk::Disk;
use crate::store::{BLOCK_BYTES, Change, Planned, ReadPlan, Slot, Store, WritePlan, compose};
use crate::units::{SECTOR_BYTES, Sector, SectorRange};

/// Bytes that are read and written at a time: several clusters of a layered store.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// What a thread works with.
pub(super) struct Hand {
    /// Plaintext: what was read of the source.
    first: Box<Locked<[u8; CHUNK_BYTES]>>,
    /// Plaintext: what was read of the destination.
    second: Box<Locked<[u8; CHUNK_BYTES]>>,
    transfers: Transfers,
}

/// What is exchanged with stores, as it lies in them.
struct Transfers {
    buffer: Box<Aligned>,
    /// Read to complete what is written.
    sources: [Box<Aligned>; 2],
    wake: Arc<EventFd>,
}

/// As direct I/O wants it.
#[repr(align(4096))]
struct Aligned([u8; CHUNK_BYTES]);

impl Aligned {
    fn new() -> Box<Self> {
        Box::new(Aligned([0; CHUNK_BYTES]))
    }
}

impl Hand {
    /// # Errors
    /// No memory, or none that can be locked.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Hand {
            first: Box::new(Locked::zeroed()?),
            second: Box::new(Locked::zeroed()?),
            transfers: Transfers {
                buffer: Aligned::new(),
                sources: [Aligned::new(), Aligned::new()],
                wake: Arc::new(EventFd::new(EFD_CLOEXEC)?),
            },
        })
    }

    /// Written to when a store that has answered *later* is to be asked again.
    pub(super) fn wake(&self) -> &Arc<EventFd> {
        &self.transfers.wake
    }

    /// Reads sectors, and deciphers those of a disk. Beyond the end there are zeros.
    pub(super) fn read_first(&mut self, input: &Input, range: SectorRange) -> io::Result<()> {
        match input {
            Input::Disk(disk) => self.transfers.read(disk, range, &mut self.first[..]),
            Input::Image(image) => {
                let bytes = range.bytes().0 as usize;
                image.read(range.start().offset(), &mut self.first[..bytes])
            }
        }
    }

    /// Reads and deciphers sectors of a disk, to be compared with what was read first.
    pub(super) fn read_second(&mut self, disk: &Disk, range: SectorRange) -> io::Result<()> {
        self.transfers.read(disk, range, &mut self.second[..])
    }

    /// Enciphers and writes what was read first; if the disk is `clean`, only the blocks that are not zeros. The
    /// bytes that were written.
    pub(super) fn write_first(&mut self, disk: &Disk, range: SectorRange, clean: bool) -> io::Result<u64> {
        let plain = &self.first[..range.bytes().0 as usize];
        if !clean {
            self.transfers.write(disk, range, plain)?;
            return Ok(range.bytes().0);
        }
        let mut written = 0;
        for run in runs_of_data(plain) {
            let sectors = range.slice(
                (run.start / SECTOR_BYTES) as u64,
                (run.len() / SECTOR_BYTES) as u64,
            );
            written += run.len() as u64;
            self.transfers.write(disk, sectors, &plain[run])?;
        }
        Ok(written)
    }

    #[cfg(test)]
    pub(super) fn set_first(&mut self, bytes: &[u8]) {
        self.first[..bytes.len()].copy_from_slice(bytes);
    }

    #[cfg(test)]
    pub(super) fn get_first(&self, range: SectorRange) -> &[u8] {
        &self.first[..range.bytes().0 as usize]
    }

    /// Where what was read first and what was read second differ.
    pub(super) fn first_difference(&self, range: SectorRange) -> Option<usize> {
        let bytes = range.bytes().0 as usize;
        let (first, second) = (&self.first[..bytes], &self.second[..bytes]);
        if first == second {
            return None;
        }
        first.iter().zip(second).position(|(one, other)| one != other)
    }
}

/// Runs of whole blocks that are not all zero; the last block may be shorter.
fn runs_of_data(plain: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (number, block) in plain.chunks(BLOCK_BYTES).enumerate() {
        if is_zero(block) {
            continue;
        }
        let start = number * BLOCK_BYTES;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = start + block.len(),
            _ => runs.push(start..start + block.len()),
        }
    }
    runs
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(64)
        .all(|some| some.iter().fold(0, |all, byte| all | byte) == 0)
}

impl Transfers {
    fn read(&mut self, disk: &Disk, range: SectorRange, plain: &mut [u8]) -> io::Result<()> {
        let have = disk.capacity().within(range);
        plain[have as usize * SECTOR_BYTES..range.bytes().0 as usize].fill(0);
        let mut done = 0;
        while done < have {
            let rest = range.slice(done, have - done);
            let plain = &mut plain[done as usize * SECTOR_BYTES..have as usize * SECTOR_BYTES];
            done += self.read_beginning(disk, rest, plain)?;
        }
        Ok(())
    }

    /// Reads the beginning of a range; the sectors that are done.
    fn read_beginning(&mut self, disk: &Disk, range: SectorRange, plain: &mut [u8]) -> io::Result<u64> {
        let store = disk.store();
        match store.plan_read(range, &self.wake)? {
            Planned::Later => {
                self.wake.read()?;
                Ok(0)
            }
            Planned::Now(ReadPlan::Zeros { count }) => {
                plain[..count as usize * SECTOR_BYTES].fill(0);
                Ok(count)
            }
            Planned::Now(ReadPlan::Transfer {
                slot,
                offset,
                count,
                pass,
            }) => {
                let bytes = count as usize * SECTOR_BYTES;
                let buffer = &mut self.buffer.0[..bytes];
                let read = read_store(disk, slot, buffer, offset);
                store.end(pass);
                read?;
                disk.decipher(range.start(), buffer, [Destination::from(&mut plain[..bytes])])
                    .map_err(cipher_failed)?;
                Ok(count)
            }
        }
    }

    fn write(&mut self, disk: &Disk, range: SectorRange, plain: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < range.count() {
            let rest = range.slice(done, range.count());
            done += self.write_beginning(disk, rest, &plain[done as usize * SECTOR_BYTES..])?;
        }
        Ok(())
    }

    /// Writes the beginning of a range; the sectors that are done.
    fn write_beginning(&mut self, disk: &Disk, range: SectorRange, plain: &[u8]) -> io::Result<u64> {
        let store = disk.store();
        match store.plan_write(range, &self.wake)? {
            Planned::Later => {
                self.wake.read()?;
                Ok(0)
            }
            Planned::Now(WritePlan::InPlace { offset, count, pass }) => {
                let buffer = &mut self.buffer.0[..count as usize * SECTOR_BYTES];
                let written = disk
                    .encipher(range.start(), [Source::from(&plain[..buffer.len()])], buffer)
                    .map_err(cipher_failed)
                    .and_then(|()| write_all(store.file(Slot::default()), buffer, offset));
                store.end(pass);
                written.map(|()| count)
            }
            Planned::Now(WritePlan::Change(change)) => self.write_change(disk, range, plain, change),
        }
    }

    fn write_change(
        &mut self,
        disk: &Disk,
        range: SectorRange,
        plain: &[u8],
        change: Change,
    ) -> io::Result<u64> {
        let store = disk.store();
        let data = change.data;
        if let Err(error) = self.write_span(disk, range, plain, &change) {
            store.abandon(change);
            return Err(error);
        }
        let mut changes = vec![change];
        let committed = store.commit(&mut changes);
        // After a success there is none left.
        for change in changes {
            store.abandon(change);
        }
        committed.map(|()| data)
    }

    fn write_span(
        &mut self,
        disk: &Disk,
        range: SectorRange,
        plain: &[u8],
        change: &Change,
    ) -> io::Result<()> {
        for (source, buffer) in change.sources.iter().zip(&mut self.sources) {
            if let Some(source) = source {
                let buffer = &mut buffer.0[..source.blocks as usize * BLOCK_BYTES];
                read_exact(disk.store().file(source.slot), buffer, source.offset)?;
            }
        }
        let first = range.start().0 - change.start;
        let data = first..first + change.data;
        let bytes = data.start as usize * SECTOR_BYTES..data.end as usize * SECTOR_BYTES;
        let span = &mut self.buffer.0[..change.count as usize * SECTOR_BYTES];
        disk.encipher(
            range.start(),
            [Source::from(&plain[..bytes.len()])],
            &mut span[bytes],
        )
        .map_err(cipher_failed)?;
        let [one, other] = &self.sources;
        let sources = [
            change.sources[0].map(|source| (source, &one.0[..])),
            change.sources[1].map(|source| (source, &other.0[..])),
        ];
        compose(span, data, sources, |sector, bytes| {
            disk.encipher_zeros(Sector(change.start + sector), bytes)
        })
        .map_err(cipher_failed)?;
        write_all(disk.store().file(Slot::default()), span, change.offset)
    }
}

/// Reads from one of a store's files.
fn read_store(disk: &Disk, slot: Slot, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let file = disk.store().file(slot);
    let Store::Raw(store) = disk.store() else {
        return read_exact(file, buffer, offset);
    };
    if !store.is_foreign() {
        return read_exact(file, buffer, offset);
    }
    let read = read_some(file, buffer, offset)?;
    buffer[read..].fill(0);
    Ok(())
}

fn cipher_failed(error: CryptoError) -> io::Error {
    io::Error::other(error)
}
