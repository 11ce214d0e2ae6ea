//! A layered store on real files, with its threads.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::time::Duration;

use sealblk_proto::causes::with_causes;

use super::file::{check_kind, claim, clear_nonblocking, switch_to_direct};
use super::layered::{
    Base, FileMedium, LayeredError, LayeredStore, NewStore, ObjectId, OpenLayered, Threads,
};
use super::{OpenError, Slot};
use crate::units::ByteLen;

/// The two open file descriptions of one file of a layered store: for data, and for metadata. The lock is on the first.
#[derive(Debug)]
pub struct FilePair {
    /// For data; `O_DIRECT` is set where that works.
    pub data: File,
    /// For metadata, through the page cache.
    pub metadata: File,
}

/// An open layered store.
#[derive(Debug)]
pub struct ThinStore {
    store: Arc<LayeredStore<FileMedium>>,
    direct: bool,
    threads: Threads,
}

impl FilePair {
    /// Locks the file, and makes it longer if need be: a new one may be empty.
    fn into_own(mut self) -> Result<(FileMedium, bool), OpenError> {
        claim(&mut self.data)?;
        clear_nonblocking(&self.metadata)?;
        let direct = switch_to_direct(&self.data)?;
        Ok((FileMedium::new(self.data, self.metadata)?, direct))
    }

    /// A file that is only read, and that others may be using.
    fn into_base(self) -> Result<FileMedium, OpenError> {
        check_kind(&self.data)?;
        clear_nonblocking(&self.data)?;
        clear_nonblocking(&self.metadata)?;
        switch_to_direct(&self.data)?;
        Ok(FileMedium::new(self.data, self.metadata)?)
    }
}

impl ThinStore {
    /// Makes a store in an empty file or device; it is durable then.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(
        file: FilePair,
        bases: Vec<FilePair>,
        new: &NewStore,
        snapshot: Option<ObjectId>,
    ) -> Result<Self, OpenError> {
        let (medium, direct) = file.into_own()?;
        let bases: Vec<_> = bases
            .into_iter()
            .map(FilePair::into_base)
            .collect::<Result<_, _>>()?;
        let base = match (snapshot, bases.first()) {
            (Some(snapshot), Some(medium)) => Some(Base { medium, snapshot }),
            (None, None) => None,
            (Some(_), None) => return Err(LayeredError::Bases { given: 0, needed: 1 }.into()),
            (None, Some(_)) => {
                let given = bases.len();
                return Err(LayeredError::Bases { given, needed: 0 }.into());
            }
        };
        new.create(&medium, base.as_ref())?;
        Self::start(medium, bases, direct, false)
    }

    /// Opens a store; with `load`, for a guest to be served, and otherwise for commands: then one whose space table is
    /// damaged can be [examined and repaired](LayeredStore::suspended).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(file: FilePair, bases: Vec<FilePair>, load: bool) -> Result<Self, OpenError> {
        let (medium, direct) = file.into_own()?;
        let bases = bases
            .into_iter()
            .map(FilePair::into_base)
            .collect::<Result<_, _>>()?;
        Self::start(medium, bases, direct, load)
    }

    fn start(
        medium: FileMedium,
        bases: Vec<FileMedium>,
        direct: bool,
        load: bool,
    ) -> Result<Self, OpenError> {
        let options = OpenLayered {
            boot: crate::host::boot()?,
            load,
        };
        let opened = if load {
            options.open(medium, bases)
        } else {
            options.open_for_maintenance(medium, bases)
        };
        let store = Arc::new(opened?);
        let threads = Threads::start(&store)?;
        Ok(ThinStore {
            store,
            direct,
            threads,
        })
    }

    /// The store.
    pub fn layers(&self) -> &LayeredStore<FileMedium> {
        &self.store
    }

    /// Whether transfers bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Bytes that the file takes on its medium; of a device, those that are in use.
    ///
    /// # Errors
    /// The kernel's.
    pub fn allocated(&self) -> io::Result<ByteLen> {
        let metadata = self.store.medium(Slot::default()).data_file().metadata()?;
        if metadata.file_type().is_block_device() {
            return Ok(ByteLen(self.store.allocated()));
        }
        Ok(ByteLen(metadata.blocks() * 512))
    }

    /// As [`super::Store::descriptors`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        let medium = self.store.medium(Slot::default());
        [medium.data(), medium.metadata()]
    }

    /// As [`super::Store::rest`]. No checkpoint is made: under the same boot the next opening finds every record.
    pub fn rest(&self, patience: Duration) -> bool {
        self.store.rest(patience)
    }

    /// As [`super::Store::go_on`].
    pub fn go_on(&self) {
        self.store.go_on();
    }

    /// For transfers of data of a slot.
    pub fn file(&self, slot: Slot) -> BorrowedFd<'_> {
        self.store.medium(slot).data()
    }
}

impl Drop for ThinStore {
    /// Ends the threads, and leaves little for the next opening to do.
    fn drop(&mut self) {
        self.threads.end();
        if !self.store.is_to_rest()
            && !self.store.has_failed()
            && let Err(error) = self.store.checkpoint_now()
        {
            let why = with_causes(&error);
            log::warn!("the last checkpoint was not made; the next opening makes it: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::layered::Uuid;
    use super::*;
    use crate::units::Capacity;

    /// The file as it is after a store was opened and dropped again, and as it was before it was dropped.
    fn dropped(poisoned: bool) -> (Vec<u8>, Vec<u8>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let pair = FilePair {
            data: open(),
            metadata: open(),
        };
        let new = NewStore {
            uuid: Uuid([1; 16]),
            capacity: Capacity::new(ByteLen(1 << 20)).unwrap(),
            disk: ObjectId([b'd'; 16]),
            lineage: ObjectId::NONE,
        };
        let store = ThinStore::create(pair, Vec::new(), &new, None).unwrap();
        // So that only the end of it writes.
        assert!(store.rest(Duration::MAX));
        let contents = || {
            let mut bytes = vec![0; file.as_file().metadata().unwrap().len() as usize];
            file.as_file().read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = contents();
        store.go_on();
        if poisoned {
            let error = io::Error::from_raw_os_error(libc::EIO);
            store.layers().poison().set("a flush has failed", &error);
        }
        drop(store);
        (before, contents())
    }

    #[test]
    fn a_store_that_has_failed_makes_no_last_checkpoint() {
        let (before, after) = dropped(false);
        assert!(before != after, "it makes one otherwise");
        let (before, after) = dropped(true);
        assert!(before == after);
    }
}
