//! What is asked of the host by paths. A confined process has none: what it will need is looked up [before](prepare).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::OnceLock;

static HOST: OnceLock<Host> = OnceLock::new();

struct Host {
    boot: [u8; 16],
    blocks: BTreeMap<u64, Option<u32>>,
}

/// Looks up what does not change, and the devices that these files are on; or all devices, if it is not known yet which files
/// there will be. To be called once, before the process is confined.
///
/// # Errors
/// The kernel's: `/proc` is needed.
pub fn prepare(files: Option<&[&File]>) -> io::Result<()> {
    let devices = match files {
        Some(files) => files
            .iter()
            .map(|file| Ok(device_of(&file.metadata()?)))
            .collect::<io::Result<_>>()?,
        None => all_devices(),
    };
    let blocks = devices.into_iter().map(|device| (device, read_block(device)));
    let blocks = blocks.collect();
    let host = Host {
        boot: read_boot()?,
        blocks,
    };
    // This function is called once.
    let _ = HOST.set(host);
    Ok(())
}

/// Identity of the host's boot (proc_sys_kernel(5), `random/boot_id`).
///
/// # Errors
/// The kernel's.
pub fn boot() -> io::Result<[u8; 16]> {
    HOST.get().map_or_else(read_boot, |host| Ok(host.boot))
}

/// The logical block, in bytes, of the device that the file is or that its file system is on; none if that is on no device,
/// or on several, or was not looked up in time.
pub fn device_block(metadata: &Metadata) -> Option<u32> {
    let device = device_of(metadata);
    match HOST.get() {
        Some(host) => host.blocks.get(&device).copied().flatten(),
        None => read_block(device),
    }
}

fn device_of(metadata: &Metadata) -> u64 {
    match metadata.file_type().is_block_device() {
        true => metadata.rdev(),
        false => metadata.dev(),
    }
}

fn all_devices() -> Vec<u64> {
    let entries = std::fs::read_dir("/sys/dev/block")
        .into_iter()
        .flatten()
        .flatten();
    let device = |name: OsString| {
        let (major, minor) = name.to_str()?.split_once(':')?;
        Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    entries.filter_map(|entry| device(entry.file_name())).collect()
}

fn read_block(device: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // A partition has the queue of its disk.
    ["queue", "../queue"].iter().find_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/logical_block_size");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

fn read_boot() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(io::Error::other)
}
