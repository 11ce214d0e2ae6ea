//! Files and devices that disks and images are imported from: what is in them, and how.

use sealblk_proto::qcow2::{self, Header};

use super::disk_path::{check_not_taken, check_path};
use super::{Kms, off_runtime};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::store::{self, Foreign};

/// How formats begin that are not read, and what they are called.
const FOREIGN: [(&[u8], &str); 4] = [
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"LUKS\xba\xbe", "LUKS"),
];

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct ImportFile {
    /// Canonical.
    pub(crate) path: String,
    /// Which file that is; see `store::Identity`.
    pub(crate) identity: String,
    /// `raw` or `qcow2`.
    pub(crate) format: &'static str,
    /// Of data, in whole sectors.
    pub(crate) bytes: u64,
}

impl ImportFile {
    /// What is at the path, in the format that is asked for, or else in the one in which it begins.
    ///
    /// # Errors
    /// [`Code::InvalidPath`], [`Code::FormatNotSupported`], [`Code::FileInUse`]; the file's.
    pub(crate) async fn look(kms: &Kms, file: &str, format: Option<&str>) -> Result<Self> {
        let canonical = check_path(kms, file).await?;
        check_not_taken(kms, &canonical, false).await?;
        let path = canonical.clone();
        let found = off_runtime(move || store::look_at(path.as_ref())).await?;
        let (format, bytes) = judge(&canonical, format, &found)?;
        Ok(ImportFile {
            path: canonical,
            identity: found.identity.to_text()?,
            format,
            bytes,
        })
    }
}

/// The format, and the bytes of data in whole sectors.
fn judge(path: &str, format: Option<&str>, found: &Foreign) -> Result<(&'static str, u64)> {
    let beginning = &found.beginning[..];
    let (format, bytes) = match format {
        Some("raw") => ("raw", found.size),
        Some("qcow2") => ("qcow2", size_in_image(path, beginning)?),
        Some(other) => {
            let text = format!("there is no format {other:?}: use raw or qcow2, or leave it out");
            return Err(Error::new(Code::InvalidRequest, text));
        }
        None if beginning.starts_with(&qcow2::MAGIC) => ("qcow2", size_in_image(path, beginning)?),
        None => {
            if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| beginning.starts_with(magic)) {
                let text = format!(
                    "{path} is in {name} format, and raw and qcow2 images are imported: convert it first, as with \
                     `qemu-img convert -O raw`, or use --format raw if it is a raw image that begins like this"
                );
                return Err(Error::new(Code::FormatNotSupported, text));
            }
            ("raw", found.size)
        }
    };
    let whole = bytes.checked_next_multiple_of(limits::SECTOR_BYTES);
    // Which no disk can have.
    Ok((format, whole.unwrap_or(u64::MAX)))
}

fn size_in_image(path: &str, beginning: &[u8]) -> Result<u64> {
    let header = Header::parse(beginning).map_err(|refusal| {
        let text = format!("{path} cannot be imported as a qcow2 image: {refusal}");
        Error::new(Code::FormatNotSupported, text)
    })?;
    Ok(header.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Identity;

    fn found(beginning: &[u8]) -> Foreign {
        Foreign {
            size: 4097,
            identity: Identity::Device {
                attributes: Default::default(),
                size: 4097,
            },
            beginning: beginning.to_vec(),
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
        assert_eq!(judged(None, b"some data"), Ok(("raw", 4608)));
        assert_eq!(judged(None, &qcow2()), Ok(("qcow2", 1024)));
        assert_eq!(judged(Some("qcow2"), &qcow2()), Ok(("qcow2", 1024)));
        // A guest may write anything to the beginning of its disk.
        assert_eq!(judged(Some("raw"), &qcow2()), Ok(("raw", 4608)));
        assert_eq!(judged(Some("raw"), b"KDMV"), Ok(("raw", 4608)));
        assert_eq!(judged(Some("qcow2"), b"some data"), refused);
        assert_eq!(judged(None, &qcow2()[..60]), refused);
        for (magic, _) in FOREIGN {
            assert_eq!(judged(None, magic), refused);
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
