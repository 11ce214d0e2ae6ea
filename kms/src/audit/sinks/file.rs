//! Records to a file, one a line. A file that was rotated or removed is followed by a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sealblk_api::AuditRecord;

use super::deliver::{Deliver, line};

/// Appends to a file.
pub(super) struct ToFile {
    path: PathBuf,
    open: Option<File>,
}

impl ToFile {
    pub(super) fn new(path: PathBuf) -> Self {
        ToFile { path, open: None }
    }

    fn file(&mut self) -> io::Result<File> {
        match self.open.take().filter(|file| is_at(file, &self.path)) {
            Some(file) => Ok(file),
            None => open(&self.path),
        }
    }
}

impl Deliver for ToFile {
    fn deliver(&mut self, records: &[AuditRecord], _: Instant, taken: &mut usize) -> io::Result<()> {
        let lines = records.iter().map(line).collect::<io::Result<String>>()?;
        // Where it fails the file is opened anew, and what stands there of a line is ended.
        let mut file = self.file()?;
        file.write_all(lines.as_bytes())?;
        // The catalogue, which has how far it is, outlives a power cut.
        file.sync_data()?;
        *taken = records.len();
        self.open = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        // Neither a link that somebody has put there, nor a pipe that nobody reads.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if found.len() == 0 {
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        return Ok(file);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Whether the file's name still leads to it.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => id(open) == id(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sinks::tests::{fail, record};

    fn read(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let seqs = text
            .lines()
            .filter_map(|line| serde_json::from_str::<AuditRecord>(line).ok());
        seqs.map(|record| record.seq).collect()
    }

    #[test]
    fn records_follow_a_file_that_is_rotated_or_removed_and_end_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "{\"seq\": 1, \"torn").unwrap();
        let mut sink = ToFile::new(path.clone());
        let mut deliver = |seqs: &[u64]| {
            let records: Vec<_> = seqs.iter().map(|seq| record(*seq)).collect();
            sink.deliver(&records, Instant::now(), &mut 0)
        };
        deliver(&[1, 2]).unwrap();
        deliver(&[3]).unwrap();
        assert_eq!(read(&path), [1, 2, 3]);
        let rotated = directory.path().join("log.1");
        std::fs::rename(&path, &rotated).unwrap();
        deliver(&[4]).unwrap();
        assert_eq!((read(&rotated), read(&path)), (vec![1, 2, 3], vec![4]));
        std::fs::remove_file(&path).unwrap();
        deliver(&[5]).unwrap();
        assert_eq!(read(&path), [5]);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Not through a link, and not into a pipe.
        std::fs::rename(&path, &rotated).unwrap();
        std::os::unix::fs::symlink(&rotated, &path).unwrap();
        deliver(&[6]).unwrap_err();
        assert_eq!(read(&rotated), [5]);
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        deliver(&[6]).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        deliver(&[6]).unwrap();
        assert_eq!(read(&path), [6]);
    }

    #[test]
    fn a_record_is_taken_when_it_is_durable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut sink = ToFile::new(path.clone());
        let mut taken = 0;
        sink.deliver(&[record(1)], Instant::now(), &mut taken).unwrap();
        assert_eq!(taken, 1);
        fail(libc::SYS_fdatasync, libc::EIO);
        let mut taken = 0;
        let error = sink
            .deliver(&[record(2)], Instant::now(), &mut taken)
            .unwrap_err();
        assert_eq!((error.raw_os_error(), taken), (Some(libc::EIO), 0));
        assert_eq!(read(&path), [1, 2], "it may be there all the same");
    }
}
