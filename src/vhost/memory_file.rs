//! On which files guest memory may lie. A page of a file is brought by its file system, and a thread that touches the page sleeps
//! until it is there. Where another process or another machine has to answer for that, they may never.

use std::fs::File;
use std::io;

use rustix::fs::FsWord;

/// File systems on which guest memory is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MemoryOn {
    /// Memory, and the file systems of local disks.
    #[default]
    Local,
    /// All: FUSE and network file systems, too.
    Any,
}

/// The memory's file cannot be relied upon.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryFileError {
    #[error(
        "memory on a file system ({0}) that may wait for another process or machine is not taken: take a memfd or a file in \
         /dev/shm, or have sealblk serve it with --memory-on any"
    )]
    MayHang(Kind),
    #[error("the file system of the memory's file cannot be told")]
    Io(#[from] io::Error),
}

/// `f_type` of a file system (statfs(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(FsWord);

/// File systems in which no page waits for anybody but the kernel and its disks: tmpfs (also memfd), hugetlbfs, ramfs, ext4, XFS,
/// Btrfs, F2FS, bcachefs, ZFS. Not overlayfs, which may lie over any.
const LOCAL: [FsWord; 9] = [
    0x0102_1994,
    0x9584_58f6,
    0x8584_58f6,
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
];

/// Names of others.
const NAMES: [(FsWord, &str); 8] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x794c_7630, "overlayfs"),
];

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMES.iter().find(|(kind, _)| *kind == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "type {:#x}", self.0),
        }
    }
}

impl MemoryOn {
    /// Whether memory on this file is taken.
    pub(super) fn check(self, file: &File) -> Result<(), MemoryFileError> {
        let takes = |kind| self == MemoryOn::Any || LOCAL.contains(&kind);
        match rustix::fs::fstatfs(file).map_err(io::Error::from)?.f_type {
            kind if takes(kind) => Ok(()),
            kind => Err(MemoryFileError::MayHang(Kind(kind))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_where_nobody_can_keep_it_back() {
        let memfd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        MemoryOn::Local.check(&File::from(memfd)).unwrap();
        // Neither of these is a file system for memory.
        let proc = File::open("/proc/self/status").unwrap();
        let refused = MemoryOn::Local.check(&proc).unwrap_err().to_string();
        assert!(refused.contains("(type 0x9fa0)"), "{refused}");
        MemoryOn::Any.check(&proc).unwrap();
        for (kind, name) in NAMES {
            assert!(!LOCAL.contains(&kind), "{name}");
            assert_eq!(Kind(kind).to_string(), name);
        }
    }
}
