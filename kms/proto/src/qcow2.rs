//! The beginning of a qcow2 image, as both processes judge it: what size the disk in it has, and whether it can be read.
//! It is hostile input, of which nothing is believed that is not checked here, and nothing is followed to another file.
//!
//! <https://www.qemu.org/docs/master/interop/qcow2.html>

/// What an image begins with.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of the header that are looked at.
pub const HEADER_BYTES: usize = 104;

/// Bytes of a header of version 2, which is the beginning of one of version 3.
const VERSION_2_BYTES: usize = 72;

/// Smallest and largest clusters, as QEMU has them.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Most entries of the first table: 32 MiB, as QEMU has it.
const MAX_TABLE_ENTRIES: u64 = 4 << 20;

/// No image has more bytes.
const MAX_FILE_BYTES: u64 = 1 << 56;

/// Incompatible features, by their bits.
mod feature {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION: u64 = 1 << 3;
    pub(super) const EXTENDED_TABLES: u64 = 1 << 4;
}

/// An image that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the disk in the image.
    pub size: u64,
    /// Bytes of a cluster, of which tables and data are made.
    pub cluster_bytes: u64,
    /// Where the first table is in the file, in bytes.
    pub table_offset: u64,
    /// Its entries of 8 bytes: enough for the whole disk.
    pub table_entries: u64,
}

/// Why an image is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something else.
    #[error("it does not begin as a qcow2 image does")]
    NotQcow2,
    /// Not even a whole header.
    #[error("it ends within its header")]
    Short,
    /// An older or a later format.
    #[error("it is of version {0} of qcow2, and 2 and 3 are read: `qemu-img convert` makes one of version 3")]
    Version(u32),
    /// Only a part of the data is in it.
    #[error(
        "it is the difference to a backing file, and no other file is opened: `qemu-img convert` makes one of both"
    )]
    BackingFile,
    /// The data is not in it.
    #[error(
        "its data is in another file, which is not opened: `qemu-img convert` makes an image that has it"
    )]
    DataFile,
    /// The image is encrypted itself.
    #[error("it is encrypted itself: `qemu-img convert` makes one that is not")]
    Encrypted,
    /// The image was not closed, and what refers to its clusters may not be what it seems.
    #[error(
        "it was not closed, or is still in use: shut its machine down, or mend it with `qemu-img check -r all`"
    )]
    Dirty,
    /// Somebody has noticed that it is damaged.
    #[error("it is marked as damaged: mend it with `qemu-img check -r all`")]
    Corrupt,
    /// Another way of compressing than the usual one.
    #[error("it is compressed with another method than zlib: `qemu-img convert` makes one that is not")]
    Compression,
    /// Tables of another layout.
    #[error("it has extended tables: `qemu-img convert -o extended_l2=off` makes one without")]
    ExtendedTables,
    /// Something that came after this program.
    #[error("it has features that are not known here (bits {0:#x}): `qemu-img convert` makes one without")]
    Features(u64),
    /// A number that cannot be right.
    #[error("its {0} cannot be right: it is damaged")]
    Damaged(&'static str),
}

impl Header {
    /// From the first bytes of the image: [`HEADER_BYTES`] or more, or all if it has fewer.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Refusal::NotQcow2);
        }
        let fields = Fields(bytes);
        let features = match fields.number(4)? {
            2 => 0,
            3 => {
                fields.check_length()?;
                fields.long(72)?
            }
            version => return Err(Refusal::Version(version)),
        };
        // Whatever else is wrong with it, these say what to do.
        check_features(features)?;
        if fields.long(8)? != 0 {
            return Err(Refusal::BackingFile);
        }
        if fields.number(32)? != 0 {
            return Err(Refusal::Encrypted);
        }
        fields.layout()
    }
}

fn check_features(features: u64) -> Result<(), Refusal> {
    for (bit, refusal) in [
        (feature::DATA_FILE, Refusal::DataFile),
        (feature::CORRUPT, Refusal::Corrupt),
        (feature::DIRTY, Refusal::Dirty),
        (feature::COMPRESSION, Refusal::Compression),
        (feature::EXTENDED_TABLES, Refusal::ExtendedTables),
    ] {
        if features & bit != 0 {
            return Err(refusal);
        }
    }
    match features {
        0 => Ok(()),
        unknown => Err(Refusal::Features(unknown)),
    }
}

/// Numbers of a header, big-endian, by their places.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&self, at: usize) -> Result<u32, Refusal> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes
            .map(|bytes| u32::from_be_bytes(*bytes))
            .ok_or(Refusal::Short)
    }

    fn long(&self, at: usize) -> Result<u64, Refusal> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes
            .map(|bytes| u64::from_be_bytes(*bytes))
            .ok_or(Refusal::Short)
    }

    /// Of version 3.
    fn check_length(&self) -> Result<(), Refusal> {
        let length = self.number(100)?;
        if (length as usize) < HEADER_BYTES || !length.is_multiple_of(8) {
            return Err(Refusal::Damaged("header's length"));
        }
        Ok(())
    }

    fn layout(&self) -> Result<Header, Refusal> {
        if self.0.len() < VERSION_2_BYTES {
            return Err(Refusal::Short);
        }
        let cluster_bits = self.number(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Refusal::Damaged("size of clusters"));
        }
        let header = Header {
            size: self.long(24)?,
            cluster_bytes: 1 << cluster_bits,
            table_offset: self.long(40)?,
            table_entries: self.number(36)?.into(),
        };
        // An entry is of a table of as many bytes as a cluster has, whose entries are of one cluster each.
        let bytes_by_entry = header.cluster_bytes << (cluster_bits - 3);
        let needed = header.size.div_ceil(bytes_by_entry);
        if needed > header.table_entries || header.table_entries > MAX_TABLE_ENTRIES {
            return Err(Refusal::Damaged("first table's length"));
        }
        if !header.table_offset.is_multiple_of(header.cluster_bytes) || header.table_offset >= MAX_FILE_BYTES
        {
            return Err(Refusal::Damaged("first table's place"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `qemu-img create -f qcow2 image 1G` makes it.
    fn valid(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 4, &version.to_be_bytes());
        put(&mut bytes, 20, &16_u32.to_be_bytes());
        put(&mut bytes, 24, &(1_u64 << 30).to_be_bytes());
        put(&mut bytes, 36, &2_u32.to_be_bytes());
        put(&mut bytes, 40, &0x3_0000_u64.to_be_bytes());
        put(&mut bytes, 48, &0x1_0000_u64.to_be_bytes());
        put(&mut bytes, 56, &1_u32.to_be_bytes());
        if version == 3 {
            put(&mut bytes, 96, &4_u32.to_be_bytes());
            put(&mut bytes, 100, &104_u32.to_be_bytes());
        }
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn images_of_both_versions_are_read() {
        let expected = Header {
            size: 1 << 30,
            cluster_bytes: 65536,
            table_offset: 0x3_0000,
            table_entries: 2,
        };
        assert_eq!(Header::parse(&valid(3)), Ok(expected));
        assert_eq!(Header::parse(&valid(2)), Ok(expected));
        assert_eq!(Header::parse(&valid(2)[..72]), Ok(expected));
        // What version 3 says there, is nothing in version 2.
        let mut old = valid(2);
        put(&mut old, 72, &[0xff; 32]);
        assert_eq!(Header::parse(&old), Ok(expected));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_reason() {
        let cases: [(usize, &[u8], Refusal); 18] = [
            (0, b"QFI\0", Refusal::NotQcow2),
            (4, &[0, 0, 0, 1], Refusal::Version(1)),
            (4, &[0, 0, 0, 4], Refusal::Version(4)),
            (8, &[0, 0, 0, 0, 0, 0, 2, 0], Refusal::BackingFile),
            (32, &[0, 0, 0, 2], Refusal::Encrypted),
            (79, &[1], Refusal::Dirty),
            (79, &[2], Refusal::Corrupt),
            (79, &[4], Refusal::DataFile),
            (79, &[8], Refusal::Compression),
            (79, &[16], Refusal::ExtendedTables),
            (79, &[32], Refusal::Features(32)),
            (100, &[0, 0, 0, 96], Refusal::Damaged("header's length")),
            (100, &[0, 0, 0, 108], Refusal::Damaged("header's length")),
            (20, &[0, 0, 0, 8], Refusal::Damaged("size of clusters")),
            (20, &[0, 0, 0, 22], Refusal::Damaged("size of clusters")),
            (36, &[0, 0, 0, 1], Refusal::Damaged("first table's length")),
            (36, &[0, 0x40, 0, 1], Refusal::Damaged("first table's length")),
            (47, &[1], Refusal::Damaged("first table's place")),
        ];
        for (at, value, refusal) in cases {
            let mut bytes = valid(3);
            put(&mut bytes, at, value);
            assert_eq!(Header::parse(&bytes), Err(refusal), "{value:?} at {at}");
        }
    }

    proptest! {
        #[test]
        fn a_header_that_is_accepted_is_sound(at in 4..HEADER_BYTES, value: [u8; 8], length in 0..=HEADER_BYTES, version in 2..=3_u32) {
            let mut bytes = valid(version);
            let end = (at + 8).min(HEADER_BYTES);
            bytes[at..end].copy_from_slice(&value[..end - at]);
            match Header::parse(&bytes[..length]) {
                Ok(header) => {
                    prop_assert!((512..=2 << 20).contains(&header.cluster_bytes));
                    prop_assert!(header.table_entries <= MAX_TABLE_ENTRIES);
                    let mapped = u128::from(header.table_entries) * u128::from(header.cluster_bytes).pow(2) / 8;
                    prop_assert!(mapped >= u128::from(header.size));
                    prop_assert!(header.table_offset.checked_add(header.table_entries * 8).is_some());
                }
                Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
            }
        }

        #[test]
        fn whatever_it_is_it_is_judged(bytes: Vec<u8>) {
            let with_magic = [&MAGIC[..], &bytes].concat();
            prop_assert!(Header::parse(&with_magic).is_ok() || Header::parse(&with_magic).is_err());
            prop_assert!(bytes.starts_with(&MAGIC) || Header::parse(&bytes) == Err(Refusal::NotQcow2));
        }
    }
}
