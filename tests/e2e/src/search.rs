//! Searching for what must not be there.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes read at once.
const WINDOW: usize = 1 << 20;

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

    /// A key: raw, in hexadecimal of either case, as a list of decimal numbers, and either half of the raw bytes.
    pub fn key(name: &str, key: &[u8]) -> Self {
        let decimal: Vec<String> = key.iter().map(u8::to_string).collect();
        let (front, back) = key.split_at(key.len() / 2);
        Needle {
            name: name.to_owned(),
            forms: vec![
                front.to_vec(),
                back.to_vec(),
                hex::encode(front).into_bytes(),
                hex::encode(back).into_bytes(),
                hex::encode_upper(front).into_bytes(),
                hex::encode_upper(back).into_bytes(),
                decimal.join(",").into_bytes(),
                decimal.join(", ").into_bytes(),
            ],
        }
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether `bytes` hold it in any form.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.position_in(bytes).is_some()
    }

    /// Where `bytes` hold it, in whichever form.
    pub fn position_in(&self, bytes: &[u8]) -> Option<usize> {
        self.forms.iter().find_map(|form| position(bytes, form))
    }
}

fn position(bytes: &[u8], form: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, form)
}

/// Names of the needles that a file holds.
///
/// # Panics
/// If it cannot be read.
pub fn found_in_file(path: &Path, needles: &[Needle]) -> Vec<String> {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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
        for needle in needles {
            if !found.contains(&needle.name) && needle.is_in(&window) {
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
