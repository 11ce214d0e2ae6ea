//! The flat store: a file or block device in which virtual sector = physical sector, and nothing else.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::file;
use super::open_error::OpenError;
use super::poison::Poison;
use crate::units::{ByteLen, Capacity, SectorRange};

/// An open, locked, flat store.
#[derive(Debug)]
pub struct RawStore {
    file: File,
    direct: bool,
    foreign: bool,
    poison: Poison,
}

impl RawStore {
    /// Takes an open file or block device, locks it, and switches the page cache off where 512-byte transfers
    /// allow that.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(mut file: File, capacity: Capacity) -> Result<Self, OpenError> {
        let have = file::claim(&mut file)?.0;
        let need = capacity.bytes().0;
        if have < need {
            return Err(OpenError::TooSmall { have, need });
        }
        let direct = file::switch_to_direct(&file)?;
        Ok(RawStore {
            file,
            direct,
            foreign: false,
            poison: Poison::default(),
        })
    }

    /// Takes an open file or block device that is no disk's, to be read only: it is not locked, and may end before the
    /// disk does, within a sector too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn foreign(file: File) -> Result<Self, OpenError> {
        file::check_kind(&file)?;
        file::clear_nonblocking(&file)?;
        Ok(RawStore {
            file,
            direct: false,
            foreign: true,
            poison: Poison::default(),
        })
    }

    /// Bytes of the file or device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn length(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// Whether it is no disk's.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Where the range's first byte lies.
    pub fn offset(&self, range: SectorRange) -> u64 {
        range.start().offset()
    }

    /// The open file, for reading, writing and `fdatasync`.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether it has failed.
    pub fn poison(&self) -> &Poison {
        &self.poison
    }

    /// Whether transfers bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Bytes that the store takes on its medium.
    ///
    /// # Errors
    /// The kernel's.
    pub fn allocated(&self) -> io::Result<ByteLen> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_block_device() {
            return Ok(ByteLen((&self.file).seek(SeekFrom::End(0))?));
        }
        Ok(ByteLen(metadata.blocks() * 512))
    }

    /// Makes every write that has ended durable.
    ///
    /// # Errors
    /// The kernel's; then the caller must not try again, for the kernel has forgotten which pages are lost.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::OFlags;

    use super::*;

    fn capacity(bytes: u64) -> Capacity {
        Capacity::new(ByteLen(bytes)).unwrap()
    }

    #[test]
    fn a_store_is_locked_and_measured() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let store = RawStore::open(file.reopen().unwrap(), capacity(8192)).unwrap();
        assert_eq!(store.offset(capacity(8192).range(3, 1).unwrap()), 1536);
        assert_eq!(store.allocated().unwrap(), ByteLen(0));
        store.sync().unwrap();
    }

    #[test]
    fn what_cannot_be_a_store_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        match RawStore::open(file.reopen().unwrap(), capacity(4608)) {
            Err(OpenError::TooSmall {
                have: 4096,
                need: 4608,
            }) => {}
            other => panic!("{other:?}"),
        }
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        assert!(matches!(
            RawStore::open(null, capacity(4096)),
            Err(OpenError::WrongKind)
        ));
    }

    /// Aligned as the engine's buffers are.
    #[repr(align(4096))]
    struct AlignedPage([u8; 4096]);

    #[test]
    fn direct_is_used_only_where_sectors_can_be_read_and_written() {
        // On tmpfs there is none, on ext4 there is.
        for directory in ["/dev/shm", "."] {
            let file = tempfile::NamedTempFile::new_in(directory).unwrap();
            file.as_file().set_len(4096).unwrap();
            let store = RawStore::open(file.reopen().unwrap(), capacity(4096)).unwrap();
            let flags = rustix::fs::fcntl_getfl(store.file()).unwrap();
            assert_eq!(flags.contains(OFlags::DIRECT), store.is_direct());
            let mut page = AlignedPage([1; 4096]);
            let read = rustix::io::pread(store.file(), &mut page.0[..512], 3584).unwrap();
            assert_eq!(read, 512);
            assert_eq!(
                rustix::io::pwrite(store.file(), &page.0[..512], 512).unwrap(),
                512
            );
        }
    }
}
