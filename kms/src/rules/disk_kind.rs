//! Kinds and types of disks, and which of them can be encrypted (rule D02).

use crate::catalogue::kinds::{DiskKind, DiskType};
use crate::catalogue::named::Named;
use crate::error::{Code, Error, Result};
use crate::profile::Profile;

/// What a disk is if nothing is asked for.
pub(crate) const DEFAULT_KIND: DiskKind = DiskKind::Cloud;
/// See [`DEFAULT_KIND`].
pub(crate) const DEFAULT_TYPE: DiskType = DiskType::Ssd;

/// The kind that was asked for.
///
/// # Errors
/// [`Code::InvalidRequest`].
pub(crate) fn choose_kind(wanted: Option<&str>) -> Result<DiskKind> {
    let Some(wanted) = wanted else {
        return Ok(DEFAULT_KIND);
    };
    DiskKind::named(wanted).ok_or_else(|| unknown("kind", wanted, &DiskKind::names(", ")))
}

/// The type that was asked for.
///
/// # Errors
/// [`Code::InvalidRequest`].
pub(crate) fn choose_type(wanted: Option<&str>) -> Result<DiskType> {
    let Some(wanted) = wanted else {
        return Ok(DEFAULT_TYPE);
    };
    DiskType::named(wanted).ok_or_else(|| unknown("type", wanted, &DiskType::names(", ")))
}

fn unknown(what: &str, wanted: &str, known: &str) -> Error {
    let text = format!("there is no {what} of disks {wanted:?}: use {known}");
    Error::new(Code::InvalidRequest, text)
}

/// Rule D02: only cloud disks can be encrypted, and only of the types in the profile, which has fewer of shared disks (D09).
///
/// # Errors
/// [`Code::LocalDisk`], [`Code::TypeNotEncryptable`].
pub(crate) fn check_encryption(
    profile: &Profile,
    encrypted: bool,
    kind: DiskKind,
    disk_type: DiskType,
    shared: bool,
) -> Result<()> {
    if !encrypted {
        return Ok(());
    }
    if kind == DiskKind::Local {
        let text = "a local disk is never encrypted: create it plain (--encrypted=false), or as a cloud disk";
        return Err(Error::new(Code::LocalDisk, text));
    }
    let (disks, types) = if shared {
        ("shared disks", profile.encryptable_shared_types)
    } else {
        ("disks", profile.encryptable_types)
    };
    if !types.contains(&disk_type.name()) {
        let text = format!(
            "{disks} of type {disk_type} are not encrypted here: choose one of {}, or create it plain \
             (--encrypted=false)",
            types.join(", ")
        );
        return Err(Error::new(Code::TypeNotEncryptable, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_d02_only_the_profiles_types_are_encrypted() {
        let strict = Profile {
            encryptable_types: &["basic", "ssd"],
            encryptable_shared_types: &["ssd"],
            ..*Profile::named("sealblk").unwrap()
        };
        let code = |encrypted, kind, disk_type| {
            let checked = check_encryption(&strict, encrypted, kind, disk_type, false);
            checked.err().map(|error| (error.code(), error.code().rule()))
        };
        assert_eq!(code(true, DiskKind::Cloud, DiskType::Basic), None);
        let refused = Some((Code::TypeNotEncryptable, Some("D02")));
        assert_eq!(code(true, DiskKind::Cloud, DiskType::Essd), refused);
        assert_eq!(code(false, DiskKind::Cloud, DiskType::Essd), None);
        assert_eq!(
            code(true, DiskKind::Local, DiskType::Ssd),
            Some((Code::LocalDisk, Some("D02")))
        );
        assert_eq!(code(false, DiskKind::Local, DiskType::Essd), None);
        let shared = |encrypted, disk_type| {
            let checked = check_encryption(&strict, encrypted, DiskKind::Cloud, disk_type, true);
            checked.err().map(|error| (error.code(), error.code().rule()))
        };
        assert_eq!(shared(true, DiskType::Ssd), None);
        assert_eq!(shared(true, DiskType::Basic), refused);
        assert_eq!(shared(false, DiskType::Basic), None);
    }
}
