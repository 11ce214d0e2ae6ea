//! What a layered store lies on: a file or block device. Tests put a recording one in its place.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Metadata's way to the medium, through the page cache: what was written is read again by the process after this
/// process was killed, and survives a power cut only after a sync. Data goes its own way, by the queue workers.
pub trait Medium: Debug + Send + Sync + 'static {
    /// Reads all of `bytes` from `offset`.
    ///
    /// # Errors
    /// The kernel's; `UnexpectedEof` beyond the end.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The kernel's.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes every write of data or metadata that has ended durable.
    ///
    /// # Errors
    /// The kernel's; then nobody knows what is durable.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn size(&self) -> io::Result<u64>;

    /// Makes it longer, without allocating space; never shorter.
    ///
    /// # Errors
    /// `ENOSPC` if it cannot be so long.
    fn grow(&self, size: u64) -> io::Result<()>;

    /// Makes sure that writes to this range will not find the host's file system full.
    ///
    /// # Errors
    /// `ENOSPC`.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Gives the space of this range back to the host, as far as that can be done.
    ///
    /// # Errors
    /// The kernel's. Nothing depends on it.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Two open file descriptions of one file or device: one for data, which bypasses the page cache where it can, and one
/// for metadata.
#[derive(Debug)]
pub struct FileMedium {
    data: File,
    metadata: File,
    is_device: bool,
}

impl FileMedium {
    /// From the two descriptors of one file.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` if they are not of the same file.
    pub fn new(data: File, metadata: File) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let (one, other) = (data.metadata()?, metadata.metadata()?);
        let is_device = one.file_type().is_block_device();
        let same = if is_device {
            other.file_type().is_block_device() && one.rdev() == other.rdev()
        } else {
            one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
        };
        if !same {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the two descriptors are not of one file or block device",
            ));
        }
        Ok(FileMedium {
            data,
            metadata,
            is_device,
        })
    }

    /// For transfers of data.
    pub fn data(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }

    /// The description for metadata.
    pub fn metadata(&self) -> BorrowedFd<'_> {
        self.metadata.as_fd()
    }

    /// For transfers of data.
    pub fn data_file(&self) -> &File {
        &self.data
    }
}

impl Medium for FileMedium {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.metadata.read_exact_at(bytes, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.metadata.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.metadata.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        (&self.metadata).seek(SeekFrom::End(0))
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        // The file may have grown before a crash.
        if self.size()? >= size {
            return Ok(());
        }
        if self.is_device {
            return Err(no_space());
        }
        match self.metadata.set_len(size) {
            // Larger than the file system allows a file to be.
            Err(error) if error.raw_os_error() == Some(libc::EFBIG) => Err(no_space()),
            result => result,
        }
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.is_device {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.metadata, FallocateFlags::empty(), offset, len) {
            // The file system cannot; then zeros do it.
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0; 64 << 10];
                let mut at = offset;
                while at < offset + len {
                    let part = (offset + len - at).min(zeros.len() as u64) as usize;
                    self.write(at, &zeros[..part])?;
                    at += part as u64;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.metadata, flags, offset, len)?)
    }
}

/// `ENOSPC`.
pub(super) fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}
