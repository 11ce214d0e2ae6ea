//! What a core dump of a running process would hold: its memory, without what it has excluded.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::search::{Finder, Needle};

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
    /// Device memory, which no dump holds and which must not be touched.
    device: bool,
}

/// What a search through a process's memory has seen.
#[derive(Debug, Default)]
pub struct MemorySearch {
    /// `NAME in MAPPING`, for every needle found where a dump would hold it.
    pub found: Vec<String>,
    /// Bytes searched.
    pub searched: u64,
    /// Bytes excluded from dumps.
    pub excluded: u64,
}

/// Searches the memory of a process as a debugger with every right would dump it.
///
/// # Errors
/// The kernel's, above all where this process may not look.
pub fn search(pid: i32, needles: &[Needle]) -> io::Result<MemorySearch> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
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
        if mapping.excluded {
            search.excluded += length;
        } else if !mapping.device {
            search.searched += search_mapping(&memory, &mapping, &finder, &mut search.found);
        }
    }
    Ok(search)
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

fn search_mapping(memory: &File, mapping: &Mapping, finder: &Finder<'_>, found: &mut Vec<String>) -> u64 {
    let mut searched = 0;
    let mut address = mapping.addresses.start;
    // Pages that cannot be read, such as guard pages, are not in a dump either.
    while address < mapping.addresses.end {
        let length = WINDOW.min(mapping.addresses.end - address);
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
                device: false,
            });
        } else if let (Some(flags), Some(mapping)) = (line.strip_prefix("VmFlags:"), mappings.last_mut()) {
            mapping.excluded = flags.split_whitespace().any(|flag| flag == "dd");
            mapping.device = flags.split_whitespace().any(|flag| flag == "io" || flag == "pf");
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
}
