//! The place that a wrapped key belongs to, as the additional authenticated data of its wrapping.

/// First byte of every blob, and of what it is bound to.
pub(super) const FORMAT_VERSION: u8 = 1;

/// What is wrapped. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectType {
    /// A known object, which tells whether a root key fits a catalogue.
    RootKeyCheck = 1,
    /// A version of a customer master key.
    MasterKey = 2,
    /// A data key.
    DataKey = 3,
    /// The salt of a lineage.
    LineageSalt = 4,
    /// A root key, under a passphrase's key.
    RootKey = 5,
    /// What a catalogue says of itself, such as a head of its audit log.
    Statement = 6,
}

/// The place of a wrapped object. A field that the object does not have is empty, or 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Region of the key.
    pub(crate) region: &'a str,
    /// Account of the key.
    pub(crate) account: &'a str,
    /// Id of the master key; for [`ObjectType::RootKeyCheck`] and [`ObjectType::Statement`] the catalogue's.
    pub(crate) key: &'a str,
    /// Version of the master key.
    pub(crate) key_version: u32,
    /// Id of the lineage; of a data key that several share, its own; the text of a [`ObjectType::Statement`].
    pub(crate) lineage: &'a str,
}

impl Place<'_> {
    /// The canonical encoding: no two places have the same.
    ///
    /// object type (1 byte) ‖ format version (1 byte) ‖ key version (4 bytes, big-endian) ‖ for region, account,
    /// key and lineage: length (4 bytes, big-endian) ‖ UTF-8 bytes.
    pub(super) fn encode(&self, object: ObjectType) -> Vec<u8> {
        let mut bytes = vec![object as u8, FORMAT_VERSION];
        bytes.extend_from_slice(&self.key_version.to_be_bytes());
        for text in [self.region, self.account, self.key, self.lineage] {
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_move_between_fields() {
        let place = |region, account| Place {
            region,
            account,
            key: "k",
            key_version: 1,
            lineage: "",
        };
        let encode = |place: Place<'_>| place.encode(ObjectType::DataKey);
        assert_ne!(encode(place("ab", "c")), encode(place("a", "bc")));
        assert_eq!(
            hex::encode(encode(place("r", ""))),
            "030100000001000000017200000000000000016b00000000"
        );
    }
}
