//! The lock by which one process at a time serves a store (rule A08).

use std::fs::File;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Takes the lock of the whole open file (`F_OFD_SETLK`), if nobody else has it.
pub fn try_lock(file: &File) -> bool {
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file)).is_ok()
}
