//! Ids, which the daemon chooses, and names, which operators choose.

use crate::error::{Code, Error, Result};
use crate::limits;

/// Characters of the random part: 5 bits each (RFC 4648, section 6, in lower case).
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Length of the random part: 80 bits.
const RANDOM_CHARACTERS: usize = 16;
/// Longest serial number of a disk, in bytes: what GET_ID answers (virtio 1.2, section 5.2.6).
const SERIAL_BYTES: usize = 20;

/// Kinds of objects that have ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Backup,
    Disk,
    Instance,
    Attachment,
    Key,
    Lineage,
    Catalogue,
    Intent,
    Request,
    Snapshot,
    Image,
    Maintenance,
    DataKey,
    Schedule,
}

impl Kind {
    const ALL: [Kind; 14] = [
        Kind::Backup,
        Kind::Disk,
        Kind::Instance,
        Kind::Attachment,
        Kind::Key,
        Kind::Lineage,
        Kind::Catalogue,
        Kind::Intent,
        Kind::Request,
        Kind::Snapshot,
        Kind::Image,
        Kind::Maintenance,
        Kind::DataKey,
        Kind::Schedule,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Kind::Backup => "bak-",
            Kind::Disk => "disk-",
            Kind::Instance => "ins-",
            Kind::Attachment => "att-",
            Kind::Key => "key-",
            Kind::Lineage => "lin-",
            Kind::Catalogue => "kms-",
            Kind::Intent => "op-",
            Kind::Request => "req-",
            Kind::Snapshot => "snap-",
            Kind::Image => "img-",
            Kind::Maintenance => "maint-",
            Kind::DataKey => "dk-",
            Kind::Schedule => "plan-",
        }
    }
}

/// A new id, which nobody can guess and which no other object has.
///
/// # Errors
/// [`Code::Internal`] if the operating system has no randomness to give.
pub(crate) fn new(kind: Kind) -> Result<String> {
    let mut random = [0; RANDOM_CHARACTERS];
    getrandom::fill(&mut random)
        .map_err(|error| Error::because(Code::Internal, "the operating system gives no randomness", error))?;
    let mut id = String::from(kind.prefix());
    id.extend(
        random
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)])),
    );
    Ok(id)
}

/// Whether a text has the form of an id of this kind.
pub(crate) fn is_of(text: &str, kind: Kind) -> bool {
    let random = text.strip_prefix(kind.prefix()).map(str::as_bytes);
    random.is_some_and(|random| {
        random.len() == RANDOM_CHARACTERS && random.iter().all(|byte| ALPHABET.contains(byte))
    })
}

/// Whether an id is a backup's.
pub(crate) fn is_backup(id: &str) -> bool {
    id.starts_with(Kind::Backup.prefix())
}

/// Whether a text is the id of a key, of this region or another.
pub(crate) fn is_key(text: &str) -> bool {
    text.starts_with(Kind::Key.prefix()) && is_id(text)
}

/// What a guest reads as the serial number of the disk of this id: all of it that there is room for. Guests find their disks
/// by it, so it is for ever.
pub(crate) fn serial(disk: &str) -> String {
    disk.chars().take(SERIAL_BYTES).collect()
}

fn is_id(text: &str) -> bool {
    Kind::ALL.iter().any(|kind| {
        text.strip_prefix(kind.prefix()).is_some_and(|rest| {
            rest.len() == RANDOM_CHARACTERS && rest.bytes().all(|byte| ALPHABET.contains(&byte))
        })
    })
}

/// Checks a name for a new object.
///
/// # Errors
/// [`Code::InvalidName`].
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let valid = name.len() <= limits::NAME_CHARACTERS
        && name.bytes().all(plain)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !valid {
        return Err(Error::new(
            Code::InvalidName,
            format!(
                "{name:?} is no name: take 1 to {} of the characters A-Z a-z 0-9 . _ -, \
                 beginning with a letter or digit",
                limits::NAME_CHARACTERS
            ),
        ));
    }
    if is_id(name) {
        return Err(Error::new(
            Code::InvalidName,
            format!("{name:?} looks like an id: choose a name that cannot be taken for one"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ids_and_differ() {
        let one = new(Kind::Disk).unwrap();
        assert!(is_id(&one), "{one}");
        assert_eq!(one.len(), 21);
        assert_ne!(one, new(Kind::Disk).unwrap());
    }

    #[test]
    fn serials_are_as_guests_know_them() {
        assert_eq!(serial("disk-abcdefghijklmnop"), "disk-abcdefghijklmno");
    }

    #[test]
    fn names() {
        for good in [
            "a",
            "9",
            "root.disk_1-b",
            &"x".repeat(64),
            "disk-1",
            "disk-aaaaaaaaaaaaaaa1",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "a/b",
            "a b",
            "ä",
            &"x".repeat(65),
            "disk-aaaaaaaaaaaaaaa2",
            "a\0",
        ] {
            assert_eq!(check_name(bad).unwrap_err().code(), Code::InvalidName, "{bad:?}");
        }
    }
}
