//! The lineage key's way from the KMS to the backend: a memfd that the receiver zeroes.
//!
//! The bytes lie in a shared mapping that the sender keeps locked until the receiver has copied them into its own
//! locked memory and overwritten them. Nothing else can be in the file, and it cannot grow (seals).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use zeroize::Zeroize;

use crate::keys::{KEY_BYTES, LineageKey};

/// A key on its way. Dropping it wipes the memfd, taken or not.
pub struct KeyInTransit {
    memfd: OwnedFd,
    page: Mapping,
}

impl KeyInTransit {
    /// Puts a copy of `key` into a new locked memfd.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(key: &LineageKey) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
        let memfd = rustix::fs::memfd_create("lineage-key", flags).or_else(|_| {
            // Kernels before 6.3 do not know NOEXEC_SEAL.
            rustix::fs::memfd_create("lineage-key", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        })?;
        rustix::fs::ftruncate(&memfd, KEY_BYTES as u64)?;
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let mut page = Mapping::new(memfd.as_fd())?;
        page.bytes().copy_from_slice(key.expose());
        Ok(KeyInTransit { memfd, page })
    }

    /// The descriptor to send along.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Whether the receiver has overwritten it.
    pub fn is_taken(&mut self) -> bool {
        self.page.bytes().iter().all(|byte| *byte == 0)
    }
}

/// Copies the key out of a received memfd and zeroes the memfd.
///
/// # Errors
/// The kernel's, and `InvalidData` for a descriptor that holds no key: another length, not sealed, or all zero.
pub fn take_key(memfd: OwnedFd) -> io::Result<LineageKey> {
    let invalid = |text: &'static str| io::Error::new(io::ErrorKind::InvalidData, text);
    if rustix::fs::fstat(&memfd)?.st_size != KEY_BYTES as i64 {
        return Err(invalid("the key's descriptor has not a key's length"));
    }
    // Without the seal, cutting the file while it is mapped would kill this process with SIGBUS.
    if !rustix::fs::fcntl_get_seals(&memfd)?.contains(SealFlags::SHRINK) {
        return Err(invalid("the key's descriptor is not sealed"));
    }
    let mut page = Mapping::new(memfd.as_fd())?;
    if page.bytes().iter().all(|byte| *byte == 0) {
        return Err(invalid("the key was taken before"));
    }
    LineageKey::new_with(|key| key.copy_from_slice(page.bytes()))
}

/// A locked mapping of the memfd's one page; wiped when dropped.
struct Mapping(NonNull<[u8; KEY_BYTES]>);

// SAFETY: the mapping is owned by this object alone within the process and valid in every thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(memfd: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of the file's only page, at an address of the kernel's choosing.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                KEY_BYTES,
                protection,
                MapFlags::SHARED,
                memfd,
                0,
            )?
        };
        let pointer =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mapping = Mapping(pointer);
        // SAFETY: lock and advice on the mapping that was just made; neither changes its contents.
        unsafe {
            rustix::mm::mlock(address, KEY_BYTES)?;
            rustix::mm::madvise(address, rustix::param::page_size(), Advice::LinuxDontFork)?;
            rustix::mm::madvise(address, rustix::param::page_size(), Advice::LinuxDontDump)?;
        }
        Ok(mapping)
    }

    fn bytes(&mut self) -> &mut [u8; KEY_BYTES] {
        // SAFETY: mapped, sealed against shrinking, and `&mut self` is exclusive here. The peer may change the
        // bytes at any time; they are plain bytes, of which any value is valid.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.bytes().zeroize();
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), KEY_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_arrives_once_and_leaves_nothing_behind() {
        let key = LineageKey::generate().unwrap();
        let mut transit = KeyInTransit::new(&key).unwrap();
        let first = transit.descriptor().try_clone_to_owned().unwrap();
        let second = transit.descriptor().try_clone_to_owned().unwrap();
        assert!(!transit.is_taken());
        let taken = take_key(first).unwrap();
        assert_eq!(taken.expose(), key.expose());
        assert!(transit.is_taken());
        assert_eq!(take_key(second).err().unwrap().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_key_that_nobody_took_is_wiped() {
        let transit = KeyInTransit::new(&LineageKey::generate().unwrap()).unwrap();
        let descriptor = transit.descriptor().try_clone_to_owned().unwrap();
        drop(transit);
        let mut bytes = [1; KEY_BYTES];
        assert_eq!(rustix::io::pread(&descriptor, &mut bytes, 0).unwrap(), KEY_BYTES);
        assert_eq!(bytes, [0; KEY_BYTES]);
    }

    #[test]
    fn other_descriptors_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(31).unwrap();
        assert!(take_key(file.try_clone().unwrap().into()).is_err());
        file.set_len(32).unwrap();
        assert!(take_key(file.into()).is_err());
    }
}
