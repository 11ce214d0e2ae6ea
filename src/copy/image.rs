//! Images of virtual disks that are copied from: qcow2, of versions 2 and 3, also with compressed clusters.
//!
//! An image is hostile input. It is judged by its header and its first table before the crate that knows the format opens
//! it, so that its size bounds what is allocated: 32 MiB for the first table and 128 tables of a cluster each. Nothing but
//! the one open file is read: backing files and data files are refused, and could not be opened. What lies behind the
//! end of the file is an error, and not zeros: an image that is cut short is none.

use std::fs::File;
use std::io;

use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, StorageOpenOptions};
use sealblk_proto::qcow2::{HEADER_BYTES, Header, Refusal};

use super::file::{hole, read_exact, read_some};
use crate::store::RawStore;

/// Where an entry of the first table says that a table is; its other bits say something else.
const TABLE_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Why an image cannot be copied from.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Images of this kind are not read.
    #[error("the image is not read: {0}")]
    Refused(Refusal),
    /// The image has another size than when the copy was begun.
    #[error("the image has {found} bytes of data, and had {expected}: it has been changed")]
    Changed {
        /// Bytes now.
        found: u64,
        /// Bytes then.
        expected: u64,
    },
    /// A table is not in the file.
    #[error("the image is cut short: it refers to byte {offset}, and has {length}")]
    CutShort {
        /// Where the table ends.
        offset: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// The kernel's, or that of the tables.
    #[error("the image cannot be read")]
    Io(#[from] io::Error),
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    access: FormatAccess<imago::file::File>,
    file: RawStore,
    /// Bytes of the file.
    length: u64,
}

impl Image {
    /// Opens the image in a file that is no disk's, which has `size` bytes of data, in whole sectors.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(file: RawStore, size: u64) -> Result<Self, ImageError> {
        let length = file.length()?;
        let mut beginning = [0; HEADER_BYTES];
        let read = read_some(file.file(), &mut beginning, 0)?;
        let header = Header::parse(&beginning[..read]).map_err(ImageError::Refused)?;
        if header.size.checked_next_multiple_of(512) != Some(size) {
            return Err(ImageError::Changed {
                found: header.size,
                expected: size,
            });
        }
        check_table(&file, &header, length)?;
        let own = File::from(file.file().try_clone_to_owned()?);
        let storage = imago::file::File::from_open_file(own, StorageOpenOptions::new())?;
        let builder = Qcow2::<_>::builder(storage).backing(None).data_file(None);
        let access = FormatAccess::new(builder.open(DenyImplicitOpenGate::default())?);
        Ok(Image { access, file, length })
    }

    /// Reads data; beyond the end of the image's disk there are zeros.
    ///
    /// # Errors
    /// The kernel's; the tables are damaged, or refer to what is not in the file.
    pub fn read(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let (mapping, count) = self.access.get_mapping(offset, buffer.len() as u64)?;
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            let (part, rest) = buffer.split_at_mut(count);
            match mapping {
                Mapping::Raw { offset, .. } => read_exact(self.file.file(), part, offset)
                    .map_err(|error| self.cut_short(error, offset))?,
                Mapping::Zero { .. } => part.fill(0),
                Mapping::Eof { .. } => {
                    rest.fill(0);
                    return Ok(());
                }
                // Compressed.
                _ => self.access.read(part, offset)?,
            }
            if count == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            offset += count as u64;
            buffer = rest;
        }
        Ok(())
    }

    /// The bytes from `offset` on, at most `bytes`, for which there is no data in the image, or a hole of its file.
    ///
    /// # Errors
    /// The tables cannot be read, or are damaged.
    pub fn zeros(&self, offset: u64, bytes: u64) -> io::Result<u64> {
        let mut done = 0;
        while done < bytes {
            let (mapping, count) = self.access.get_mapping(offset + done, bytes - done)?;
            let zeros = match mapping {
                Mapping::Zero { .. } => count,
                Mapping::Eof { .. } => bytes - done,
                Mapping::Raw { offset, .. } => self.hole_in_file(offset, count),
                // Compressed.
                _ => 0,
            };
            done += zeros;
            if zeros == 0 || zeros < count {
                break;
            }
        }
        Ok(done)
    }

    /// As [`hole`], but what lies behind the end of the file is none: it is an error when it is read.
    fn hole_in_file(&self, offset: u64, bytes: u64) -> u64 {
        let hole = hole(self.file.file(), offset, bytes);
        // Asked afterwards, so that a file that is cut short meanwhile is found.
        let end = offset.checked_add(hole);
        let within = end.is_some_and(|end| self.file.length().is_ok_and(|length| end <= length));
        if within { hole } else { 0 }
    }

    fn cut_short(&self, error: io::Error, offset: u64) -> io::Error {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return error;
        }
        let length = self.length;
        io::Error::other(ImageError::CutShort { offset, length })
    }
}

/// Whether the first table, and all tables that it refers to, are in the file.
fn check_table(file: &RawStore, header: &Header, length: u64) -> Result<(), ImageError> {
    let end = header.table_offset + 8 * header.table_entries;
    let cut_short = |offset| ImageError::CutShort { offset, length };
    if end > length {
        return Err(cut_short(end));
    }
    let mut table = vec![0; 8 * header.table_entries as usize];
    read_exact(file.file(), &mut table, header.table_offset)?;
    let (entries, _) = table.as_chunks();
    for entry in entries {
        let offset = u64::from_be_bytes(*entry) & TABLE_OFFSET;
        let end = offset + header.cluster_bytes;
        if offset != 0 && end > length {
            return Err(cut_short(end));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
