//! Searching for what must not be there.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64ct::{Base64, Base64Url, Encoding};
use memchr::memmem;

use crate::aes_schedule::last_round_key;

/// Bytes read at once.
const WINDOW: usize = 1 << 20;
const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// Something to search for, in each form that it might have been written in.
#[derive(Clone, Debug)]
pub struct Needle {
    /// What it is, for messages.
    pub name: String,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    /// A text or marker.
    pub fn text(name: &str, bytes: &[u8]) -> Self {
        Needle {
            name: name.to_owned(),
            forms: vec![bytes.to_vec()],
        }
    }

    /// A key: raw, in hexadecimal of either case, in base64 of either alphabet wherever in it the key begins, as a list of
    /// decimal numbers; and either half of the raw bytes.
    pub fn key(name: &str, key: &[u8]) -> Self {
        let decimal: Vec<String> = key.iter().map(u8::to_string).collect();
        let (front, back) = key.split_at(key.len() / 2);
        // Five groups of three bytes, whose four characters do not depend on what is beside them.
        let base64 = (0..3).flat_map(|skipped| {
            let bytes = &key[skipped..skipped + 15];
            [Base64::encode_string(bytes), Base64Url::encode_string(bytes)].map(String::into_bytes)
        });
        Needle {
            name: name.to_owned(),
            forms: [
                front.to_vec(),
                back.to_vec(),
                hex::encode(front).into_bytes(),
                hex::encode(back).into_bytes(),
                hex::encode_upper(front).into_bytes(),
                hex::encode_upper(back).into_bytes(),
                decimal.join(",").into_bytes(),
                decimal.join(", ").into_bytes(),
            ]
            .into_iter()
            .chain(base64)
            .collect(),
        }
    }

    /// A key of AES-256: the key, and the last round key, which a cipher begins with when it deciphers.
    ///
    /// # Panics
    /// If it has not 32 bytes.
    pub fn cipher_key(name: &str, key: &[u8]) -> Self {
        let mut needle = Needle::key(name, key);
        needle.forms.push(last_round_key(key).to_vec());
        needle
    }

    /// A large number, written in big-endian order, and in the little-endian one of a library's words: any 32 bytes of it.
    pub fn number(name: &str, big_endian: &[u8]) -> Self {
        let little_endian: Vec<u8> = big_endian.iter().rev().copied().collect();
        let pieces = big_endian.chunks_exact(32).chain(little_endian.chunks_exact(32));
        Needle {
            name: name.to_owned(),
            forms: pieces.map(<[u8]>::to_vec).collect(),
        }
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether `bytes` hold it in any form.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| memmem::find(bytes, form).is_some())
    }
}

/// All forms of several needles, searched for in one pass.
pub struct Finder<'a> {
    automaton: AhoCorasick,
    /// The needle of each form.
    owners: Vec<&'a Needle>,
}

impl<'a> Finder<'a> {
    /// Of these needles.
    ///
    /// # Panics
    /// If they are too many or too long.
    pub fn new(needles: &'a [Needle]) -> Self {
        let forms = needles.iter().flat_map(|needle| &needle.forms);
        let owners = needles.iter().flat_map(|needle| vec![needle; needle.forms.len()]);
        Finder {
            automaton: AhoCorasick::new(forms).expect("an automaton"),
            owners: owners.collect(),
        }
    }

    /// The needles that `bytes` hold, and where first.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<(&'a Needle, usize)> {
        let mut found: Vec<(&Needle, usize)> = Vec::new();
        // Most of a process's memory was never written.
        let is_zero = |page: &[u8]| page == &ZEROS[..page.len()];
        let mut pages = bytes.chunks(PAGE).enumerate().peekable();
        while let Some((first, page)) = pages.next() {
            if is_zero(page) {
                continue;
            }
            let mut end = first + 1;
            while pages.next_if(|(_, page)| !is_zero(page)).is_some() {
                end += 1;
            }
            // What goes on into the page behind has zeros there.
            let run = &bytes[first * PAGE..((end + 1) * PAGE).min(bytes.len())];
            for hit in self.automaton.find_overlapping_iter(run) {
                let needle = self.owners[hit.pattern().as_usize()];
                if !found.iter().any(|(known, _)| known.name == needle.name) {
                    found.push((needle, first * PAGE + hit.start()));
                }
            }
        }
        found
    }
}

/// Names of the needles that a file holds.
///
/// # Panics
/// If it cannot be read.
pub fn found_in_file(path: &Path, needles: &[Needle]) -> Vec<String> {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let finder = Finder::new(needles);
    let overlap = needles.iter().map(Needle::longest).max().unwrap_or(0);
    let mut window: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    loop {
        window.drain(..window.len().saturating_sub(overlap));
        let read = Read::by_ref(&mut file)
            .take(WINDOW as u64)
            .read_to_end(&mut window);
        if read.unwrap_or_else(|error| panic!("{}: {error}", path.display())) == 0 {
            return found;
        }
        for (needle, _) in finder.found_in(&window) {
            if !found.contains(&needle.name) {
                found.push(needle.name.clone());
            }
        }
    }
}

/// Every needle found in the regular files below `directory`, as `NAME in PATH`. Gives also the number of files.
///
/// # Panics
/// If a file cannot be read.
pub fn found_below(directory: &Path, needles: &[Needle]) -> (Vec<String>, usize) {
    let files = files_below(directory);
    let found = |path: &PathBuf| {
        let names = found_in_file(path, needles);
        let path = path.display().to_string();
        names
            .into_iter()
            .map(move |name| format!("{name} in {path}"))
            .collect::<Vec<_>>()
    };
    (files.iter().flat_map(found).collect(), files.len())
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needles_are_found_in_every_form_and_across_windows() {
        let key: Vec<u8> = (100..132).collect();
        let needle = Needle::key("key", &key);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for form in [
            key.clone(),
            hex::encode(&key).into_bytes(),
            format!("{key:?}").into_bytes(),
            Base64::encode_string(&[b"x", &key[..]].concat()).into_bytes(),
            Base64Url::encode_string(&[b"xy", &key[..]].concat()).into_bytes(),
            key[16..].to_vec(),
        ] {
            let mut bytes = vec![0; WINDOW - 7];
            bytes.extend(form);
            fs::write(&path, bytes).unwrap();
            assert_eq!(found_in_file(&path, std::slice::from_ref(&needle)), ["key"]);
        }
        fs::write(&path, &key[1..15]).unwrap();
        assert!(found_in_file(&path, std::slice::from_ref(&needle)).is_empty());
        let (found, files) = found_below(directory.path(), &[Needle::text("text", &key[2..9])]);
        assert_eq!((found.len(), files), (1, 1));
    }
}
