//! Namespaces in which there is nothing: no network, no System V IPC, no files.
#![allow(unsafe_code)]

use std::fs;
use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{DumpableBehavior, getegid, geteuid, pivot_root, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use super::privileges;

/// A directory that every Linux has, to put the empty root on.
const PLACE: &str = "/proc";

/// Sees to it that namespaces can be made later. Who was started by root keeps what is needed for that, and nothing else. Others
/// get it in a user namespace, in which they are the same user, so that they and their peers know each other as before.
pub(super) fn prepare(makes_socket: bool) -> io::Result<Result<(), String>> {
    if privileges::has(CapabilitySet::SYS_ADMIN) {
        if !geteuid().is_root() {
            // The last is for rings.
            let mut kept = CapabilitySet::SYS_ADMIN | CapabilitySet::SETPCAP | CapabilitySet::IPC_LOCK;
            if makes_socket {
                kept |= CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
            }
            privileges::keep(kept)?;
        }
        return Ok(Ok(()));
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if let Err(error) = unshare(UnshareFlags::NEWUSER) {
        return Ok(Err(format!("the kernel refuses a user namespace: {error}")));
    }
    // Files in /proc/self belong to root unless this is so. There is no secret in memory yet.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let mapped = fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")));
    sealblk_proto::process::forbid_core_dumps()?;
    mapped?;
    Ok(Ok(()))
}

/// Enters new ones. Sockets stay what they are, and where they were bound.
pub(super) fn enter() -> Result<(), String> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .map_err(|error| format!("the kernel refuses them: {error}"))?;
    empty_root().map_err(|error| format!("the kernel refuses an empty root directory: {error}"))
}

fn empty_root() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", PLACE, "tmpfs", flags, c"mode=555,nr_blocks=1,nr_inodes=1")?;
    rustix::process::chdir(PLACE)?;
    // The old root comes to lie on the new one, and is taken away from there (pivot_root(2), "pivot_root(\".\", \".\")").
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors stay shared, and there is one thread.
    Ok(unsafe { unshare_unsafe(namespaces) }?)
}
