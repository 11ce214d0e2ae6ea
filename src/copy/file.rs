//! Whole reads and writes of an open file, and its holes.

use std::io;
use std::os::fd::BorrowedFd;

pub(super) fn read_exact(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = read_some(file, buffer, offset)?;
    if read < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Reads as far as the file goes.
pub(super) fn read_some(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}

pub(super) fn write_all(file: BorrowedFd<'_>, buffer: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pwrite(file, &buffer[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The bytes from `offset` on, at most `bytes`, that are a hole, or behind the file's end. A device, and a file system that
/// does not tell, have none.
pub(super) fn hole(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data.saturating_sub(offset).min(bytes),
        Err(rustix::io::Errno::NXIO) => bytes,
        Err(_) => 0,
    }
}
