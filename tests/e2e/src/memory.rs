//! What a running process holds, and where: what a core dump would have, and what it has excluded from dumps.
//!
//! A debugger's core file is searched as well ([`found_in_core`]): that has the registers of all threads, too. But it lacks what is
//! in files or shared, unless it is asked for it, and says nothing of memory that may be swapped out.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::search::{Finder, Needle, found_in_file};

/// Bytes read at once; the kernel gives up a read at the first page that it cannot read.
const WINDOW: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A mapping of a process.
#[derive(Clone, Debug)]
struct Mapping {
    addresses: Range<u64>,
    name: String,
    /// `MADV_DONTDUMP`.
    excluded: bool,
    /// `mlock(2)`, or secret memory.
    locked: bool,
    /// Device memory, which no dump holds and which must not be touched.
    device: bool,
    /// Of no file: pages that were never written are zeros.
    anonymous: bool,
}

/// What a search through a process's memory has seen.
#[derive(Debug, Default)]
pub struct MemorySearch {
    /// `NAME in MAPPING`, for every needle found where a dump would hold it.
    pub found: Vec<String>,
    /// The same, where no dump would, but swap could.
    pub unlocked: Vec<String>,
    /// The same, where it is kept from both.
    pub kept: Vec<String>,
    /// Bytes searched that a dump would hold.
    pub searched: u64,
    /// Bytes excluded from dumps.
    pub excluded: u64,
    /// Bytes of these that not even root can read: secret memory.
    pub secret: u64,
}

/// Searches the memory of a process as a debugger with every right would dump it.
///
/// # Errors
/// The kernel's, above all where this process may not look.
pub fn search(pid: i32, needles: &[Needle]) -> io::Result<MemorySearch> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut search = MemorySearch::default();
    let stacks = stack_pointers(pid);
    let finder = Finder::new(needles);
    for mut mapping in mappings(&fs::read_to_string(format!("/proc/{pid}/smaps"))?) {
        if let Some((name, _)) = stacks
            .iter()
            .find(|(_, pointer)| mapping.addresses.contains(pointer))
        {
            mapping.name = format!("the stack of thread {name}");
        }
        let length = mapping.addresses.end - mapping.addresses.start;
        if mapping.device {
            continue;
        }
        let found = match (mapping.excluded, mapping.locked) {
            (false, _) => &mut search.found,
            (true, false) => &mut search.unlocked,
            (true, true) => &mut search.kept,
        };
        let searched = search_mapping(&memory, &pages, &mapping, &finder, found);
        if mapping.excluded {
            search.excluded += length;
            search.secret += if searched == 0 && mapping.locked {
                length
            } else {
                0
            };
        } else {
            search.searched += searched;
        }
    }
    Ok(search)
}

/// The first place in locked memory with these bytes: so many from there on.
///
/// # Errors
/// The kernel's, above all where this process may not look.
pub fn read_locked(pid: i32, bytes: &[u8], length: usize) -> io::Result<Option<Vec<u8>>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    for mapping in mappings(&fs::read_to_string(format!("/proc/{pid}/smaps"))?) {
        let mut contents = vec![0; (mapping.addresses.end - mapping.addresses.start) as usize];
        if !mapping.locked
            || memory
                .read_exact_at(&mut contents, mapping.addresses.start)
                .is_err()
        {
            continue;
        }
        if let Some(at) = memchr::memmem::find(&contents, bytes) {
            return Ok(contents.get(at..at + length).map(<[u8]>::to_vec));
        }
    }
    Ok(None)
}

/// The needles in a core file that a debugger makes of the process; none where there is no debugger.
///
/// # Panics
/// If the debugger makes none.
pub fn found_in_core(pid: i32, needles: &[Needle]) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().expect("a directory");
    let core = directory.path().join("core");
    let mut gdb = Command::new("gdb");
    gdb.args(["--batch", "-nx", "--readnever", "-p", &pid.to_string(), "-ex"]);
    gdb.arg(format!("generate-core-file {}", core.display()));
    let output = match gdb.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        output => output.expect("the debugger runs"),
    };
    assert!(core.exists(), "no core file: {output:?}");
    Some(found_in_file(&core, needles))
}

/// Names and stack pointers of the threads that wait in a system call (`/proc/PID/task/TID/syscall`, proc(5)).
fn stack_pointers(pid: i32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let pointer = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let call = fs::read_to_string(task.path().join("syscall")).ok()?;
        let pointer = call.split_whitespace().rev().nth(1)?.strip_prefix("0x")?;
        Some((name.trim().to_owned(), u64::from_str_radix(pointer, 16).ok()?))
    };
    tasks.filter_map(pointer).collect()
}

/// Whether none of these pages is in memory or swap (`/proc/PID/pagemap`, proc(5)): an allocator reserves many.
fn was_never_written(pages: &File, address: u64, length: u64) -> bool {
    let mut entries = vec![0; (length / PAGE * 8) as usize];
    let read = pages.read_exact_at(&mut entries, address / PAGE * 8);
    read.is_ok() && entries.chunks_exact(8).all(|entry| entry[7] & 0b1100_0000 == 0)
}

fn search_mapping(
    memory: &File,
    pages: &File,
    mapping: &Mapping,
    finder: &Finder<'_>,
    found: &mut Vec<String>,
) -> u64 {
    let mut searched = 0;
    let mut address = mapping.addresses.start;
    // Pages that cannot be read, such as guard pages, are not in a dump either.
    while address < mapping.addresses.end {
        let length = WINDOW.min(mapping.addresses.end - address);
        if mapping.anonymous && was_never_written(pages, address, length) {
            searched += length;
            address += length;
            continue;
        }
        let mut bytes = vec![0; length as usize];
        let read = memory.read_at(&mut bytes, address).unwrap_or(0) as u64;
        bytes.truncate(read as usize);
        for (needle, at) in finder.found_in(&bytes) {
            found.push(format!(
                "{} in {} at {:#x}",
                needle.name,
                mapping.name,
                address + at as u64
            ));
        }
        searched += read;
        // Windows overlap, so that nothing hides across their edge.
        address += if read > PAGE && read == length {
            read - PAGE
        } else {
            read.max(PAGE)
        };
        if read == length && address + PAGE >= mapping.addresses.end {
            break;
        }
    }
    searched
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(addresses) = range(line) {
            mappings.push(Mapping {
                addresses,
                name: line
                    .split_whitespace()
                    .nth(5)
                    .unwrap_or("anonymous memory")
                    .to_owned(),
                excluded: false,
                locked: false,
                device: false,
                anonymous: line.split_whitespace().nth(4) == Some("0"),
            });
        } else if let (Some(flags), Some(mapping)) = (line.strip_prefix("VmFlags:"), mappings.last_mut()) {
            let has = |wanted| flags.split_whitespace().any(|flag| flag == wanted);
            (mapping.excluded, mapping.locked) = (has("dd"), has("lo"));
            mapping.device = has("io") || has("pf");
        }
    }
    mappings
}

/// `START-END …` in hexadecimal.
fn range(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_found() {
        // Made at run time, so that the executable does not hold it.
        let secret: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(37) ^ 0xa5).collect();
        let other: Vec<u8> = (0..3 * WINDOW as usize)
            .map(|i| i as u8)
            .chain(secret.iter().copied())
            .collect();
        let needle = Needle::text("secret", &secret);
        let search = search(std::process::id() as i32, &[needle]).unwrap();
        assert!(
            !search.found.is_empty() && search.searched > other.len() as u64,
            "{search:?}"
        );
    }

    #[test]
    fn what_is_kept_from_dumps_is_told_from_what_is_kept_from_swap_too() {
        use sealblk_proto::locked::{Locked, WorkingMemory};
        let filled = |seed: u8| -> [u8; 32] { std::array::from_fn(|at| (at as u8).wrapping_mul(41) ^ seed) };
        let mut locked = Locked::<[u8; 32]>::zeroed().unwrap();
        *locked = filled(1);
        let mut working = WorkingMemory::filled(0u8, 32).unwrap();
        working.values().copy_from_slice(&filled(2));
        let needles = [1, 2].map(|seed| Needle::text(&format!("secret {seed}"), &filled(seed)[..16]));
        // The needles themselves are in the heap.
        let search = search(std::process::id() as i32, &needles).unwrap();
        assert_eq!(
            search.kept.len() + usize::from(search.secret > 0),
            2,
            "{search:?}"
        );
        assert_eq!(search.unlocked, Vec::<String>::new());
        let end = read_locked(std::process::id() as i32, &filled(2)[..16], 32).unwrap();
        assert_eq!(end.as_deref(), Some(&filled(2)[..]));
    }
}
