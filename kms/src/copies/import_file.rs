//! Files and devices that disks and images are imported from: what is in them, and how.

use sealblk_proto::qcow2::{self, Header, Refusal};

use super::chosen_file::{self, Chosen, ChosenFile};
use crate::audit::Caller;
use crate::catalogue::copies::{CopiedFile, Format, Origin};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::foreign_format::ForeignFormat;
use crate::host::store::Foreign;
use crate::limits;

/// What is read.
#[derive(Debug)]
pub(crate) struct ImportFile {
    pub(crate) file: ChosenFile,
    /// Which file that is; see `store::Identity`.
    pub(crate) identity: String,
    pub(crate) format: Format,
    /// Of data, in whole sectors.
    pub(crate) bytes: u64,
}

impl ImportFile {
    /// What is in the file, in the format that is asked for, or else in the one that it is seen to be in.
    ///
    /// # Errors
    /// [`Code::PathNotAllowed`], [`Code::InvalidPath`], [`Code::DescriptorUnusable`], [`Code::FormatNotSupported`],
    /// [`Code::FileInUse`]; the file's.
    pub(crate) async fn look(kms: &Kms, caller: &Caller, from: Chosen, format: Option<&str>) -> Result<Self> {
        let (file, found) = chosen_file::input(kms, caller, from).await?;
        let (format, bytes) = judge(&file.path, format, &found)?;
        Ok(ImportFile {
            file,
            identity: found.identity.to_text()?,
            format,
            bytes,
        })
    }

    /// What is copied: so many bytes.
    pub(crate) fn origin(&self, bytes: i64) -> Origin {
        let file = CopiedFile {
            path: self.file.path.clone(),
            identity: Some(self.identity.clone()),
            size: bytes,
        };
        Origin::File {
            file,
            format: self.format,
        }
    }
}

/// The format, and the bytes of data in whole sectors.
fn judge(path: &str, format: Option<&str>, found: &Foreign) -> Result<(Format, u64)> {
    let is_image = found.beginning.starts_with(&qcow2::MAGIC);
    let (format, bytes) = match format {
        Some("raw") => (Format::Raw, found.size),
        Some("qcow2") => (Format::Qcow2, size_in_image(path, found)?),
        Some(other) => {
            let text = format!("there is no format {other:?}: use raw or qcow2, or leave it out");
            return Err(Error::new(Code::InvalidRequest, text));
        }
        None if is_image => (Format::Qcow2, size_in_image(path, found)?),
        None => {
            check_not_foreign(path, found)?;
            (Format::Raw, found.size)
        }
    };
    let whole = bytes.checked_next_multiple_of(limits::SECTOR_BYTES);
    // Which no disk can have.
    Ok((format, whole.unwrap_or(u64::MAX)))
}

/// Refuses what is surely no raw image.
fn check_not_foreign(path: &str, found: &Foreign) -> Result<()> {
    let Some(format) = ForeignFormat::of(&found.beginning, &found.end) else {
        return Ok(());
    };
    let text = format!(
        "{path} is {}, and raw and qcow2 images are imported: {}, or use --format raw if these very bytes are to be the \
         disk's",
        format.name, format.advice
    );
    Err(Error::new(Code::FormatNotSupported, text))
}

fn size_in_image(path: &str, found: &Foreign) -> Result<u64> {
    let header = Header::parse(&found.beginning);
    if header == Err(Refusal::NotQcow2) {
        // There may be more to say.
        check_not_foreign(path, found)?;
    }
    let header = header.map_err(|refusal| {
        let text = format!("{path} cannot be imported as a qcow2 image: {refusal}");
        Error::new(Code::FormatNotSupported, text)
    })?;
    Ok(header.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::store::Identity;

    fn found(beginning: &[u8]) -> Foreign {
        Foreign {
            size: 4097,
            identity: Identity::Device {
                attributes: Default::default(),
                size: 4097,
            },
            beginning: beginning.to_vec(),
            end: Vec::new(),
        }
    }

    /// A header of version 2, of a disk of 1000 bytes.
    fn qcow2() -> Vec<u8> {
        let mut bytes = [0; 72];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        bytes[23] = 16;
        bytes[24..32].copy_from_slice(&1000_u64.to_be_bytes());
        bytes[39] = 1;
        bytes[45] = 3;
        bytes.to_vec()
    }

    #[test]
    fn the_format_is_what_was_asked_for_or_how_it_begins() {
        let judged = |format, beginning: &[u8]| {
            judge("/file", format, &found(beginning)).map_err(|error| error.code())
        };
        let refused = Err(Code::FormatNotSupported);
        assert_eq!(judged(None, b"some data"), Ok((Format::Raw, 4608)));
        assert_eq!(judged(None, &qcow2()), Ok((Format::Qcow2, 1024)));
        assert_eq!(judged(Some("qcow2"), &qcow2()), Ok((Format::Qcow2, 1024)));
        // A guest may write anything to the beginning of its disk.
        assert_eq!(judged(Some("raw"), &qcow2()), Ok((Format::Raw, 4608)));
        assert_eq!(judged(Some("raw"), b"KDMV"), Ok((Format::Raw, 4608)));
        assert_eq!(judged(Some("qcow2"), b"some data"), refused);
        assert_eq!(judged(None, &qcow2()[..60]), refused);
        let foreign = |format| {
            let refused = judge("/file", format, &found(b"\xfd7zXZ\0")).unwrap_err();
            assert_eq!(refused.code(), Code::FormatNotSupported);
            refused.full_message()
        };
        for format in [None, Some("qcow2")] {
            let text = foreign(format);
            assert!(
                text.contains("compressed with xz") && text.contains("xz -d"),
                "{text}"
            );
        }
        assert_eq!(judged(Some("vmdk"), b"KDMV"), Err(Code::InvalidRequest));
    }

    #[test]
    fn a_size_that_no_disk_has_is_no_small_one() {
        let mut bytes = qcow2();
        bytes[24..32].copy_from_slice(&u64::MAX.to_be_bytes());
        // The first table would be too short for it.
        assert!(judge("/file", None, &found(&bytes)).is_err());
    }
}
