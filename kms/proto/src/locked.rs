//! Memory that is never written to swap, to a core dump or to a child process.
//!
//! `memfd_secret(2)` where the kernel has it (the pages are then also gone from the kernel's direct map),
//! otherwise an anonymous mapping with `mlock(2)`. There is no silent third way: memory that cannot be locked is
//! an error, because rule K06 promises it. Only [`WorkingMemory`], which may need more than the limit permits, goes on without
//! the lock, and says so.
#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// One `T` in locked, non-dumpable, non-inherited memory; dropped and wiped with it.
pub struct Locked<T> {
    value: NonNull<T>,
    mapped_bytes: usize,
}

// SAFETY: `Locked` owns its `T` exclusively, as a Box does; the mapping is valid in every thread.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: `&Locked<T>` gives out nothing but `&T`.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Moves what `make` returns into locked memory and wipes the stack that the move has used.
    ///
    /// # Errors
    /// The kernel's, if memory cannot be mapped or locked (`RLIMIT_MEMLOCK`).
    pub fn new_with(make: impl FnOnce() -> T) -> io::Result<Self> {
        let mapped_bytes = size_of::<T>().max(1).next_multiple_of(rustix::param::page_size());
        assert!(align_of::<T>() <= rustix::param::page_size());
        let value = map_locked(mapped_bytes)?.cast::<T>();
        // SAFETY: the mapping is writable, page-aligned and at least as large as T.
        unsafe { value.write(make()) };
        wipe_dead_stack();
        Ok(Locked { value, mapped_bytes })
    }
}

/// Values to compute with, such as the blocks of a key derivation that is meant to need much memory: neither dumped nor
/// inherited, wiped when dropped, and locked if there may be so much locked memory.
///
/// Not secret memory, whose pages go from the kernel's direct map one by one: for so many that takes long, and makes it
/// coarse for everybody.
pub struct WorkingMemory<T> {
    values: NonNull<T>,
    count: usize,
    mapped_bytes: usize,
    unlocked: Option<io::Error>,
}

impl<T: Copy> WorkingMemory<T> {
    /// `count` copies of a value.
    ///
    /// # Errors
    /// The kernel's, if memory cannot be mapped.
    pub fn filled(value: T, count: usize) -> io::Result<Self> {
        assert!(align_of::<T>() <= rustix::param::page_size());
        let bytes = size_of::<T>().checked_mul(count.max(1));
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let mapped_bytes = bytes.max(1).next_multiple_of(rustix::param::page_size());
        let address = map_anonymous(mapped_bytes)?;
        // SAFETY: the mapping was just made; mlock does not change its contents.
        let unlocked = unsafe { rustix::mm::mlock(address, mapped_bytes) }.err();
        let values = hide(address, mapped_bytes)?.cast::<T>();
        for index in 0..count {
            // SAFETY: the mapping is writable, page-aligned and has room for so many.
            unsafe { values.add(index).write(value) };
        }
        Ok(WorkingMemory {
            values,
            count,
            mapped_bytes,
            unlocked: unlocked.map(io::Error::from),
        })
    }

    /// Why it is not locked, if it is not.
    pub fn unlocked(&self) -> Option<&io::Error> {
        self.unlocked.as_ref()
    }

    /// The values.
    pub fn values(&mut self) -> &mut [T] {
        // SAFETY: so many were written when this was made, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.count) }
    }
}

impl<T> Drop for WorkingMemory<T> {
    fn drop(&mut self) {
        // SAFETY: whole pages that this object owns and nothing refers to any more, so aligned for a u64 too. Values that
        // can be copied need no drop.
        unsafe {
            let words = self.values.as_ptr().cast::<u64>();
            let words = std::slice::from_raw_parts_mut(words, self.mapped_bytes / size_of::<u64>());
            zeroize::Zeroize::zeroize(words);
            let _ = rustix::mm::munmap(self.values.as_ptr().cast(), self.mapped_bytes);
        }
    }
}

impl<const N: usize> Locked<[u8; N]> {
    /// `N` zero bytes, to be filled in place, so that the secret never lies on the stack.
    ///
    /// # Errors
    /// As [`Locked::new_with`].
    pub fn zeroed() -> io::Result<Self> {
        Self::new_with(|| [0; N])
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: initialised in `new_with`, owned until drop.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: initialised in `new_with`, and `&mut self` is exclusive.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is dropped exactly once, then its whole mapping is wiped and unmapped, all of which
        // this object owns; nothing can refer to it any more.
        unsafe {
            self.value.drop_in_place();
            let bytes = std::slice::from_raw_parts_mut(self.value.as_ptr().cast::<u8>(), self.mapped_bytes);
            zeroize::Zeroize::zeroize(bytes);
            let _ = rustix::mm::munmap(self.value.as_ptr().cast(), self.mapped_bytes);
        }
    }
}

fn map_locked(bytes: usize) -> io::Result<NonNull<u8>> {
    let address = match map_secret(bytes) {
        Ok(address) => address,
        Err(_) => map_mlocked(bytes)?,
    };
    hide(address, bytes)
}

/// Keeps a mapping that was just made from dumps and children; if that fails, it goes.
fn hide(address: *mut core::ffi::c_void, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: advice on a mapping that nobody else knows.
    let hidden = unsafe {
        rustix::mm::madvise(address, bytes, Advice::LinuxDontFork)
            .and_then(|()| rustix::mm::madvise(address, bytes, Advice::LinuxDontDump))
    };
    if let Err(error) = hidden {
        // SAFETY: the mapping is ours and unused.
        unsafe { rustix::mm::munmap(address, bytes)? };
        return Err(error.into());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

fn map_secret(bytes: usize) -> io::Result<*mut core::ffi::c_void> {
    // SAFETY: no pointer is passed; the result is checked before it is taken as a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    rustix::fs::ftruncate(&fd, bytes as u64)?;
    // SAFETY: a new mapping at an address of the kernel's choosing.
    let address = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &fd,
            0,
        )?
    };
    // Secret memory is populated at the first touch: do it here, where a failure is an error and not a SIGBUS.
    // SAFETY: advice on the mapping that was just made.
    let populated = unsafe { rustix::mm::madvise(address, bytes, Advice::LinuxPopulateWrite) };
    if let Err(error) = populated {
        // SAFETY: the mapping is ours and unused.
        unsafe { rustix::mm::munmap(address, bytes)? };
        return Err(error.into());
    }
    Ok(address)
}

fn map_anonymous(bytes: usize) -> io::Result<*mut core::ffi::c_void> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choosing.
    Ok(unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)? })
}

fn map_mlocked(bytes: usize) -> io::Result<*mut core::ffi::c_void> {
    let address = map_anonymous(bytes)?;
    // SAFETY: the mapping is ours; mlock does not change its contents.
    if let Err(error) = unsafe { rustix::mm::mlock(address, bytes) } {
        // SAFETY: the mapping is ours and unused.
        unsafe { rustix::mm::munmap(address, bytes)? };
        return Err(error.into());
    }
    Ok(address)
}

/// Overwrites the stack below the caller, where a moved secret may have left a copy, and the vector registers, where
/// ciphers leave round keys.
#[inline(always)]
pub fn wipe_dead_stack() {
    wipe_dead_stack_of::<{ 16 * 1024 }>();
}

/// As [`wipe_dead_stack`], so many bytes of it: for whoever has called what has larger locals.
#[inline(never)]
pub fn wipe_dead_stack_of<const BYTES: usize>() {
    let mut dead = [0u8; BYTES];
    zeroize::Zeroize::zeroize(&mut dead[..]);
    std::hint::black_box(&dead);
    wipe_vector_registers();
}

/// Clears the vector registers. Ciphers leave round keys there, from where they would get into a register dump and,
/// by `clone(2)`, into every thread that is started later.
#[cfg(target_arch = "x86_64")]
pub fn wipe_vector_registers() {
    use std::arch::asm;
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has these registers; all of them are declared as clobbered, and no memory is touched.
        unsafe {
            asm!(
                "vzeroall",
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        }
    } else if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: as above.
        unsafe {
            asm!(
                "vzeroall",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            )
        };
    } else {
        // SAFETY: as above; every x86-64 processor has SSE2.
        unsafe {
            asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

/// On other processors they are left as they are.
#[cfg(not(target_arch = "x86_64"))]
pub fn wipe_vector_registers() {}

/// Keeps the calling thread's stack out of swap and core dumps: ciphers spill round keys onto it. Pages are locked
/// as they are touched. The thread should have been given a small stack, for all of it counts as locked.
///
/// # Errors
/// The kernel's, if memory cannot be locked (`RLIMIT_MEMLOCK`).
pub fn lock_this_stack() -> io::Result<()> {
    let (address, bytes) = this_stack()?;
    // SAFETY: the range is this thread's own stack; neither call changes its contents.
    unsafe {
        rustix::mm::mlock_with(address, bytes, rustix::mm::MlockFlags::ONFAULT)?;
        rustix::mm::madvise(address, bytes, Advice::LinuxDontDump)?;
    }
    Ok(())
}

/// Address and length of the calling thread's stack, whole pages.
fn this_stack() -> io::Result<(*mut core::ffi::c_void, usize)> {
    let checked = |result: libc::c_int| match result {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    };
    let mut address = std::ptr::null_mut();
    let mut bytes = 0;
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: the attributes are initialised by the first call and destroyed after their last use; the other
    // pointers are to locals.
    unsafe {
        checked(libc::pthread_getattr_np(
            libc::pthread_self(),
            attributes.as_mut_ptr(),
        ))?;
        let read = checked(libc::pthread_attr_getstack(
            attributes.as_ptr(),
            &mut address,
            &mut bytes,
        ));
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        read?;
    }
    Ok((address, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smaps block of the mapping that holds `address`.
    fn smaps_of(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut block = String::new();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(head, _)| head.split_once('-'));
            let bounds = range.and_then(|(a, b)| {
                Some((
                    usize::from_str_radix(a, 16).ok()?,
                    usize::from_str_radix(b, 16).ok()?,
                ))
            });
            if let Some((start, end)) = bounds {
                inside = (start..end).contains(&address);
            }
            if inside {
                block.push_str(line);
                block.push('\n');
            }
        }
        block
    }

    #[test]
    fn the_mapping_is_locked_not_dumped_and_not_inherited() {
        let mut secret = Locked::<[u8; 32]>::zeroed().unwrap();
        secret.fill(7);
        let block = smaps_of(std::ptr::from_ref(&*secret) as usize);
        let flags = block
            .lines()
            .find_map(|line| line.strip_prefix("VmFlags:"))
            .unwrap();
        for flag in ["lo", "dd", "dc"] {
            assert!(
                flags.split_whitespace().any(|set| set == flag),
                "{flag} not in {flags}"
            );
        }
    }

    #[test]
    fn the_mlock_fallback_locks_too() {
        let address = map_mlocked(4096).unwrap();
        let block = smaps_of(address as usize);
        assert!(block.contains("Locked:                4 kB"), "{block}");
        // SAFETY: mapped above, not used afterwards.
        unsafe { rustix::mm::munmap(address, 4096).unwrap() };
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn vector_registers_are_cleared() {
        use std::arch::asm;
        let mut before = [0u64; 2];
        let mut after = [1u64; 4];
        // SAFETY: writes one register, and stores it into a local of its size.
        unsafe {
            asm!("pcmpeqd xmm7, xmm7", "movdqu [{0}], xmm7", in(reg) before.as_mut_ptr(), out("xmm7") _);
        }
        wipe_vector_registers();
        // SAFETY: stores two registers into a local of their size.
        unsafe {
            asm!("movdqu [{0}], xmm7", "movdqu [{0} + 16], xmm15", in(reg) after.as_mut_ptr());
        }
        assert_eq!((before, after), ([u64::MAX; 2], [0; 4]));
    }

    #[test]
    fn a_threads_stack_can_be_locked() {
        let check = || {
            lock_this_stack().unwrap();
            let local = 0u8;
            let block = smaps_of(std::ptr::from_ref(&local) as usize);
            let flags = block
                .lines()
                .find_map(|line| line.strip_prefix("VmFlags:"))
                .unwrap();
            for flag in ["lo", "dd"] {
                assert!(
                    flags.split_whitespace().any(|set| set == flag),
                    "{flag} not in {flags}"
                );
            }
        };
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(check)
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn a_value_keeps_its_contents_and_runs_its_drop() {
        struct Probe<'a>(u64, &'a std::cell::Cell<bool>);
        impl Drop for Probe<'_> {
            fn drop(&mut self) {
                self.1.set(true);
            }
        }
        let dropped = std::cell::Cell::new(false);
        let locked = Locked::new_with(|| Probe(42, &dropped)).unwrap();
        assert_eq!(locked.0, 42);
        assert!(!dropped.get());
        drop(locked);
        assert!(dropped.get());
    }
}
