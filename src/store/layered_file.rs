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
    Base, Expected, FileMedium, LayeredError, LayeredStore, NewStore, ObjectId, OpenLayered, StoreState,
    Threads,
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
pub struct LayeredFile {
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

impl LayeredFile {
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
        Self::start(medium, bases, &Expected::default(), direct, false, &|| {})
    }

    /// Opens a store that is what is expected; with `load`, for a guest to be served, and otherwise for commands: then one whose space table is
    /// damaged can be [examined and repaired](LayeredStore::suspended). A large one takes its time: `tell` is called whenever that
    /// gets on.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        file: FilePair,
        bases: Vec<FilePair>,
        expected: &Expected,
        load: bool,
        tell: &dyn Fn(),
    ) -> Result<Self, OpenError> {
        let (medium, direct) = file.into_own()?;
        let bases = bases
            .into_iter()
            .map(FilePair::into_base)
            .collect::<Result<_, _>>()?;
        Self::start(medium, bases, expected, direct, load, tell)
    }

    fn start(
        medium: FileMedium,
        bases: Vec<FileMedium>,
        expected: &Expected,
        direct: bool,
        load: bool,
        tell: &dyn Fn(),
    ) -> Result<Self, OpenError> {
        let options = OpenLayered {
            boot: crate::host::boot()?,
            load,
        };
        let store = Arc::new(options.open_expected(medium, bases, expected, tell)?);
        let threads = Threads::start(&store)?;
        Ok(LayeredFile {
            store,
            direct,
            threads,
        })
    }

    /// The store.
    pub fn layered(&self) -> &LayeredStore<FileMedium> {
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

    /// As [`super::Store::quiesce_background`]. No checkpoint is made: under the same boot the next opening finds every record.
    pub fn quiesce_background(&self, patience: Duration) -> bool {
        self.store.quiesce_background(patience)
    }

    /// As [`super::Store::go_on`].
    pub fn go_on(&self) {
        self.store.go_on();
    }

    /// Makes the last checkpoint: nothing more is written, not even when this is dropped. Nothing else may be under way.
    /// Returns what is left on the medium; none if that is not known, because the store has failed.
    pub fn close(&self) -> Option<StoreState> {
        if !self.store.quiesce_background(Duration::MAX) {
            return None;
        }
        let mut closing = [0; 16];
        if let Err(error) = getrandom::fill(&mut closing) {
            log::warn!("what the store was left as is not known: {error}");
            return None;
        }
        // Of one that could only be examined, nothing has been written.
        if self.store.suspended().is_none() && !self.checkpoint(|store| store.close(closing)) {
            return None;
        }
        Some(self.store.store_state())
    }

    /// Leaves little for the next opening to do.
    fn checkpoint(&self, make: impl FnOnce(&LayeredStore<FileMedium>) -> Result<(), LayeredError>) -> bool {
        if self.store.has_failed() {
            return false;
        }
        let made = make(&self.store).inspect_err(|error| {
            let why = with_causes(error);
            log::warn!("the last checkpoint was not made; the next opening makes it: {why}");
        });
        made.is_ok()
    }

    /// For transfers of data of a slot.
    pub fn file(&self, slot: Slot) -> BorrowedFd<'_> {
        self.store.medium(slot).data()
    }
}

impl Drop for LayeredFile {
    fn drop(&mut self) {
        self.threads.end();
        if !self.store.is_to_rest() {
            self.checkpoint(LayeredStore::checkpoint_now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use tempfile::NamedTempFile;

    use super::super::layered::Uuid;
    use super::*;
    use crate::units::Capacity;

    const DISK: ObjectId = ObjectId([b'd'; 16]);

    fn pair(file: &NamedTempFile) -> FilePair {
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        FilePair {
            data: open(),
            metadata: open(),
        }
    }

    /// A new store in a file.
    fn create(file: &NamedTempFile) -> LayeredFile {
        let new = NewStore {
            uuid: Uuid([1; 16]),
            capacity: Capacity::new(ByteLen(1 << 20)).unwrap(),
            disk: DISK,
            lineage: ObjectId::NONE,
        };
        LayeredFile::create(pair(file), Vec::new(), &new, None).unwrap()
    }

    /// The file as it is after a store was opened and dropped again, and as it was before it was dropped.
    fn dropped(poisoned: bool) -> (Vec<u8>, Vec<u8>) {
        let file = NamedTempFile::new().unwrap();
        let store = create(&file);
        // So that only the end of it writes.
        assert!(store.quiesce_background(Duration::MAX));
        let contents = || {
            let mut bytes = vec![0; file.as_file().metadata().unwrap().len() as usize];
            file.as_file().read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = contents();
        store.go_on();
        if poisoned {
            let error = io::Error::from_raw_os_error(libc::EIO);
            store.layered().poison().set("a flush has failed", &error);
        }
        drop(store);
        (before, contents())
    }

    /// What is left when it is closed is what the next one finds, and the way there is told.
    #[test]
    fn a_closed_store_is_opened_as_what_it_was_left_as_and_as_nothing_older() {
        let file = NamedTempFile::new().unwrap();
        let contents = || std::fs::read(file.path()).unwrap();
        let close = |store: LayeredFile| {
            let left = store.close().unwrap();
            let before = contents();
            drop(store);
            assert!(contents() == before, "nothing is written after that");
            left
        };
        let last = close(create(&file));
        let older = contents();
        let told = std::cell::Cell::new(0);
        let open = |last: StoreState| {
            let expected = Expected {
                disk: Some(DISK),
                last: Some(last),
                closed: true,
                ..Expected::default()
            };
            LayeredFile::open(pair(&file), Vec::new(), &expected, true, &|| {
                told.set(told.get() + 1)
            })
        };
        let newer = close(open(last).unwrap());
        assert!(told.get() > 0 && newer.sequence > last.sequence);
        std::fs::write(file.path(), &older).unwrap();
        let refused = open(newer);
        assert!(matches!(
            refused,
            Err(OpenError::Layered(LayeredError::RolledBack { .. }))
        ));
        assert!(contents() == older, "nor is anything written to what is refused");
        close(open(last).unwrap());
    }

    /// Only clusters that each has already were written, and as many times: the metadata of both are the same.
    #[test]
    fn of_two_copies_that_were_used_since_one_is_not_taken_for_the_other() {
        let file = NamedTempFile::new().unwrap();
        let open = |last: StoreState| {
            let expected = Expected {
                last: Some(last),
                closed: true,
                ..Expected::default()
            };
            LayeredFile::open(pair(&file), Vec::new(), &expected, true, &|| ())
        };
        let close = |store: LayeredFile| store.close().unwrap();
        let common = close(create(&file));
        let original = std::fs::read(file.path()).unwrap();
        let one = close(open(common).unwrap());
        let first = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), &original).unwrap();
        let other = close(open(common).unwrap());
        assert_eq!(one.sequence, other.sequence);
        let refused = open(one);
        assert!(matches!(
            refused,
            Err(OpenError::Layered(LayeredError::RolledBack { .. }))
        ));
        std::fs::write(file.path(), &first).unwrap();
        close(open(one).unwrap());
    }

    #[test]
    fn a_store_that_has_failed_makes_no_last_checkpoint() {
        let (before, after) = dropped(false);
        assert!(before != after, "it makes one otherwise");
        let (before, after) = dropped(true);
        assert!(before == after);
    }
}
