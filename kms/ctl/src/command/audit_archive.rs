//! Files of `sealctl audit archive`: the head after which they begin, a record of any account a line, and in the last line the
//! head with which they end. Whoever has the file can verify it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use sealblk_api::client::{Client, Page, Patience, route};
use sealblk_api::{ArchiveAudit, AuditHead, AuditPage, AuditRecord};
use serde::{Deserialize, Serialize};

use super::audit_export::{LastLine, create, end, failed, put};
use crate::failure::Failure;

/// The first line.
#[derive(Deserialize, Serialize)]
struct FirstLine {
    archived: AuditHead,
}

/// What a file holds.
pub(super) struct Archive {
    /// The record before the first that is archived.
    begin: AuditHead,
    /// The last record that is archived.
    pub(super) head: AuditHead,
    pub(super) records: u64,
}

/// Writes the records before `before` to a file, verifies that, and has the daemon remove them.
///
/// # Errors
/// As [`write`] and [`read`], before anything is removed: then the file goes again. What the daemon says of the removal: then the file
/// stays, for the records may be there alone.
pub(super) async fn archive(client: &mut Client, before: u64, path: &Path) -> Result<Archive, Failure> {
    let file = create(path)?;
    let written = match write(client, before, file, path).await {
        Ok(()) => read(path),
        Err(error) => Err(error),
    };
    let archive = match written {
        Ok(archive) => archive,
        Err(error) => {
            // The reason counts more than what is left of it.
            let _ = fs::remove_file(path);
            return Err(error);
        }
    };
    let remove = ArchiveAudit {
        before,
        hash: archive.head.hash.clone(),
    };
    let _: AuditHead = client
        .post(&route(&["audit", "archive"]), &remove, Patience::Endless)
        .await?;
    Ok(archive)
}

async fn write(client: &mut Client, before: u64, file: File, path: &Path) -> Result<(), Failure> {
    let mut file = BufWriter::new(file);
    let (mut after, mut head) = (Some("0".to_owned()), None);
    while let Some(position) = after {
        let page: AuditPage = client
            .page_after(&route(&["audit", "archive"]), &position)
            .await?;
        if head.is_none() {
            let archived = page.archived.clone().ok_or_else(|| {
                Failure::WrongFile("the daemon does not say after which record its log begins".to_owned())
            })?;
            put(
                &mut file,
                path,
                &FirstLine {
                    archived: archived.clone(),
                },
            )?;
            head = Some(archived);
        }
        for record in page.audit.iter().take_while(|record| record.seq < before) {
            put(&mut file, path, record)?;
            head = Some(head_of(record));
        }
        after = page
            .next()
            .filter(|_| page.audit.last().is_none_or(|last| last.seq < before));
    }
    if let Some(head) = head {
        put(&mut file, path, &LastLine { head })?;
    }
    end(file, path)?;
    // The records are nowhere else soon: their file's name must last, too.
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed(directory, error))
}

/// Reads an archive, and recomputes its chain.
///
/// # Errors
/// [`Failure::File`]; [`Failure::WrongFile`] at the first record that is not what was archived.
pub(super) fn read(path: &Path) -> Result<Archive, Failure> {
    let wrong = |text: &str| Failure::WrongFile(format!("{}: {text}", path.display()));
    let file = File::open(path).map_err(|error| failed(path, error))?;
    let mut lines = BufReader::new(file).lines();
    let mut next = || lines.next().transpose().map_err(|error| failed(path, error));
    let first = next()?.unwrap_or_default();
    let first: FirstLine = serde_json::from_str(&first)
        .map_err(|_| wrong("is not an archive: give a whole file of `sealctl audit archive`"))?;
    let begin = first.archived;
    let (mut head, mut records) = (begin.clone(), 0);
    loop {
        let line = next()?.ok_or_else(|| wrong("the end is missing"))?;
        if let Ok(last) = serde_json::from_str::<LastLine>(&line) {
            if !is_same(&last.head, &head) || next()?.is_some() {
                return Err(wrong("it does not end where its last line says"));
            }
            return Ok(Archive { begin, head, records });
        }
        let record: AuditRecord = serde_json::from_str(&line)
            .map_err(|_| wrong(&format!("what follows record {} is no record", head.seq)))?;
        let previous = hex::decode(&head.hash).unwrap_or_default();
        if record.seq != head.seq + 1 || record.hash != hex::encode(record.chained(&previous)) {
            return Err(wrong(&format!("record {} is not what was archived", record.seq)));
        }
        head = head_of(&record);
        records += 1;
    }
}

/// Verifies archives, of which each goes on where the one before ends; the last of them.
///
/// # Errors
/// As [`read`]; [`Failure::WrongFile`] for one that is missing between two.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Option<Archive>, Failure> {
    let mut last: Option<Archive> = None;
    for path in paths {
        let archive = read(path)?;
        if let Some(last) = &last
            && !is_same(&last.head, &archive.begin)
        {
            let text = format!(
                "{} begins after record {}, and the archive before it ends with record {}, or with another one of that number",
                path.display(),
                archive.begin.seq,
                last.head.seq
            );
            return Err(Failure::WrongFile(text));
        }
        last = Some(archive);
    }
    Ok(last)
}

fn head_of(record: &AuditRecord) -> AuditHead {
    AuditHead {
        id: record.id.clone(),
        name: record.name.clone(),
        seq: record.seq,
        hash: record.hash.clone(),
    }
}

fn is_same(one: &AuditHead, other: &AuditHead) -> bool {
    (one.seq, &one.hash) == (other.seq, &other.hash)
}
