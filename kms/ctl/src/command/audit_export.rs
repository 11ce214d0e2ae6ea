//! Files of `sealctl audit export`: a record a line, and in the last line the head of the log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sealblk_api::client::{Client, Page, route};
use sealblk_api::{AuditHead, AuditPage};
use serde::{Deserialize, Serialize};

use super::audit_verify::verify;
use crate::failure::Failure;

/// A last line is shorter than this, in bytes.
const LAST_LINE_BYTES: i64 = 4096;

/// The last line.
#[derive(Deserialize, Serialize)]
pub(super) struct LastLine {
    pub(super) head: AuditHead,
}

/// Writes all records up to the head of a log that is what was written; the head, and how many records there are.
///
/// # Errors
/// [`Failure::FileExists`], [`Failure::File`], and the daemon's. A file that was begun is removed.
pub(super) async fn write(client: &mut Client, path: &Path) -> Result<(AuditHead, u64), Failure> {
    let file = create(path)?;
    let written = write_to(client, file, path).await;
    if written.is_err() {
        // The reason why it was not written counts more than what is left of it.
        let _ = fs::remove_file(path);
    }
    written
}

pub(super) fn create(path: &Path) -> Result<File, Failure> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::FileExists(path.display().to_string()),
        _ => failed(path, error),
    })
}

async fn write_to(client: &mut Client, file: File, path: &Path) -> Result<(AuditHead, u64), Failure> {
    let mut file = BufWriter::new(file);
    // What is recorded meanwhile is beyond the head, and not in the file.
    let head = verify(client, None).await?;
    let (mut after, mut records) = (Some("0".to_owned()), 0);
    while let Some(position) = after {
        let page: AuditPage = client.page_after(&route(&["audit"]), &position).await?;
        for record in page.audit.iter().filter(|record| record.seq <= head.seq) {
            put(&mut file, path, record)?;
            records += 1;
        }
        after = page.next();
    }
    put(&mut file, path, &LastLine { head: head.clone() })?;
    end(file, path)?;
    Ok((head, records))
}

/// What was written is durable.
pub(super) fn end(file: BufWriter<File>, path: &Path) -> Result<(), Failure> {
    let synced = file.into_inner().map_err(io::IntoInnerError::into_error);
    synced
        .and_then(|file| file.sync_all())
        .map_err(|error| failed(path, error))
}

pub(super) fn put(file: &mut impl Write, path: &Path, line: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(line)? + "\n";
    file.write_all(line.as_bytes())
        .map_err(|error| failed(path, error))
}

/// The head in the last line of a file.
///
/// # Errors
/// [`Failure::File`], [`Failure::WrongFile`].
pub(super) fn head_of(path: &Path) -> Result<AuditHead, Failure> {
    let end = read_end(path).map_err(|error| failed(path, error))?;
    let last = end.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    let last: Result<LastLine, _> = serde_json::from_slice(last.unwrap_or_default());
    last.map(|line| line.head).map_err(|_| {
        let text = "does not end with the head of an audit log: give a whole file of `sealctl audit export`";
        Failure::WrongFile(format!("{} {text}", path.display()))
    })
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > LAST_LINE_BYTES.unsigned_abs() {
        file.seek(SeekFrom::End(-LAST_LINE_BYTES))?;
    }
    let mut end = Vec::new();
    file.take(LAST_LINE_BYTES.unsigned_abs()).read_to_end(&mut end)?;
    Ok(end)
}

pub(super) fn failed(path: &Path, source: io::Error) -> Failure {
    Failure::File {
        path: path.display().to_string(),
        source,
    }
}
