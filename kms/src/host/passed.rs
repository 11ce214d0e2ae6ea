//! Open files that callers pass instead of naming a path: what they opened with their own rights is what is read or written.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, OFlags};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Code, Error, Result};
use crate::limits;

/// Stands for the file where otherwise a path stands, in the catalogue too.
pub(crate) const PASSED: &str = "-";

/// Whether a file of this path is one that the caller has passed, which none but the daemon that got it can open.
pub(crate) fn is_passed(path: &str) -> bool {
    path == PASSED
}

/// A file that a caller has passed.
#[derive(Debug)]
pub(crate) struct Passed(Option<Open>);

#[derive(Debug)]
struct Open {
    file: File,
    /// Given back when the file is closed.
    _place: Option<OwnedSemaphorePermit>,
}

impl Passed {
    /// With the caller's place for it, if it comes from a caller.
    pub(crate) fn new(file: OwnedFd, place: Option<OwnedSemaphorePermit>) -> Self {
        Passed(Some(Open {
            file: file.into(),
            _place: place,
        }))
    }

    /// So many zeros, which take no room: an empty file in memory that nobody else has.
    ///
    /// # Errors
    /// [`Code::Internal`].
    pub(crate) fn zeros(size: u64) -> Result<Self> {
        let failed = |errno: rustix::io::Errno| {
            let text = "a file in memory cannot be made";
            Error::because(Code::Internal, text, std::io::Error::from(errno))
        };
        let file = rustix::fs::memfd_create("zeros", MemfdFlags::CLOEXEC).map_err(failed)?;
        rustix::fs::ftruncate(&file, size).map_err(failed)?;
        Ok(Passed::new(file, None))
    }

    pub(crate) fn file(&self) -> &File {
        // The file is there until this is dropped.
        &self.0.as_ref().expect("a file that was passed").file
    }

    /// Refuses what cannot be read, or with `write` be written and compared: neither looks at who may open it otherwise.
    ///
    /// # Errors
    /// [`Code::DescriptorUnusable`], [`Code::NotAFileOrBlockDevice`].
    pub(crate) fn check(&self, write: bool) -> Result<()> {
        let unusable = |error: std::io::Error| {
            Error::because(
                Code::DescriptorUnusable,
                "the file that was passed cannot be used",
                error,
            )
        };
        let refuse = |why: &str| Err(Error::new(Code::DescriptorUnusable, why));
        let metadata = self.file().metadata().map_err(unusable)?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            let text = "what was passed is neither a regular file nor a block device: pass one, such as a temporary file";
            return Err(Error::new(Code::NotAFileOrBlockDevice, text));
        }
        let flags = rustix::fs::fcntl_getfl(self.file()).map_err(|errno| unusable(errno.into()))?;
        let access = flags & OFlags::RWMODE;
        if flags.contains(OFlags::PATH) || access == OFlags::WRONLY {
            return refuse("the file that was passed is not open for reading");
        }
        if write && access != OFlags::RDWR {
            return refuse(
                "the file that was passed is not open for both reading and writing: it is compared when it is written",
            );
        }
        if write && flags.contains(OFlags::APPEND) {
            return refuse("the file that was passed is open for appending: open it without O_APPEND");
        }
        Ok(())
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        to_close().push(open);
        // The file's file system may take its time to close it. There are as many such threads as there are places.
        let closing = std::thread::Builder::new().name("close".to_owned());
        if let Err(error) = closing.spawn(close_all) {
            log::warn!("a file that was passed stays open until the next one is closed: {error}");
        }
    }
}

/// What is to be closed, each by whichever thread takes it.
fn to_close() -> MutexGuard<'static, Vec<Open>> {
    static TO_CLOSE: Mutex<Vec<Open>> = Mutex::new(Vec::new());
    TO_CLOSE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close_all() {
    loop {
        // The lock is not held while a file is closed: the other threads go on.
        let next = to_close().pop();
        match next {
            Some(open) => drop(open),
            None => return,
        }
    }
}

/// Files that were passed for copies that go on, by the copies' ids. A daemon that ends loses them.
#[derive(Debug, Default)]
pub(crate) struct PassedFiles(Mutex<HashMap<String, (String, Arc<Passed>)>>);

impl PassedFiles {
    fn look(&self) -> MutexGuard<'_, HashMap<String, (String, Arc<Passed>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a file for a copy that an account is about to begin.
    ///
    /// # Errors
    /// [`Code::TooMany`].
    pub(crate) fn hold(self: &Arc<Self>, account: &str, copy: String, file: Passed) -> Result<Held> {
        let mut all = self.look();
        let own = all.values().filter(|(owner, _)| owner == account).count();
        if own >= limits::PASSED_OF_ACCOUNT {
            let text = format!("{own} copies of files that were passed go on: try again when one has ended");
            return Err(Error::new(Code::TooMany, text));
        }
        let file = Arc::new(file);
        all.insert(copy.clone(), (account.to_owned(), Arc::clone(&file)));
        Ok(Held {
            files: Arc::clone(self),
            copy,
            file,
            begun: AtomicBool::new(false),
        })
    }

    /// The file of a copy.
    ///
    /// # Errors
    /// [`Code::DescriptorLost`].
    pub(crate) fn get(&self, copy: &str) -> Result<Arc<Passed>> {
        self.look().get(copy).map(|(_, file)| Arc::clone(file)).ok_or_else(|| {
            let text = "the file that was passed was lost when sealblk-kms ended, which cannot open it again: pass it once more";
            Error::new(Code::DescriptorLost, text)
        })
    }

    /// The copy has ended.
    pub(crate) fn forget(&self, copy: &str) {
        let file = self.look().remove(copy);
        drop(file);
    }
}

/// A file that is kept for a copy, and given up unless that is begun.
#[derive(Debug)]
pub(crate) struct Held {
    files: Arc<PassedFiles>,
    copy: String,
    file: Arc<Passed>,
    begun: AtomicBool,
}

impl Held {
    /// Id of the copy.
    pub(crate) fn copy(&self) -> &str {
        &self.copy
    }

    pub(crate) fn file(&self) -> Arc<Passed> {
        Arc::clone(&self.file)
    }

    /// Has the file kept until the copy has ended.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.begun.load(Ordering::Relaxed) {
            self.files.forget(&self.copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn passed(file: impl Into<OwnedFd>) -> Passed {
        Passed::new(file.into(), None)
    }

    #[test]
    fn a_file_is_of_a_kind_and_open_as_it_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "").unwrap();
        let open = |read, write, append| {
            let file = OpenOptions::new()
                .read(read)
                .write(write)
                .append(append)
                .open(&path);
            passed(file.unwrap())
        };
        let code = |passed: Passed, write| passed.check(write).map_err(|error| error.code());
        let unusable = Err(Code::DescriptorUnusable);
        assert_eq!(code(open(true, false, false), false), Ok(()));
        assert_eq!(code(open(true, true, false), false), Ok(()));
        assert_eq!(code(open(true, true, false), true), Ok(()));
        assert_eq!(code(open(false, true, false), false), unusable);
        assert_eq!(code(open(true, false, false), true), unusable);
        assert_eq!(code(open(false, true, false), true), unusable);
        assert_eq!(code(open(true, true, true), true), unusable);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let path_only = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(code(passed(path_only), false), unusable);
        let kind = Err(Code::NotAFileOrBlockDevice);
        assert_eq!(
            code(passed(std::fs::File::open(directory.path()).unwrap()), false),
            kind
        );
        assert_eq!(
            code(passed(std::fs::File::open("/dev/null").unwrap()), false),
            kind
        );
        assert_eq!(
            code(passed(std::os::unix::net::UnixStream::pair().unwrap().0), false),
            kind
        );
    }

    #[test]
    fn a_file_is_kept_for_a_copy_that_is_begun_and_for_no_other() {
        let files = Arc::new(PassedFiles::default());
        let file = || passed(tempfile::tempfile().unwrap());
        drop(files.hold("acme", "a".to_owned(), file()).unwrap());
        assert_eq!(files.get("a").unwrap_err().code(), Code::DescriptorLost);
        let held = files.hold("acme", "b".to_owned(), file()).unwrap();
        held.begin();
        drop(held);
        assert!(files.get("b").is_ok());
        files.forget("b");
        assert!(files.get("b").is_err());
        let held: Vec<_> = (0..limits::PASSED_OF_ACCOUNT)
            .map(|number| files.hold("acme", number.to_string(), file()).unwrap())
            .collect();
        assert_eq!(
            files.hold("acme", "c".to_owned(), file()).unwrap_err().code(),
            Code::TooMany
        );
        assert!(files.hold("beta", "c".to_owned(), file()).is_ok());
        drop(held);
        assert!(files.hold("acme", "c".to_owned(), file()).is_ok());
    }
}
