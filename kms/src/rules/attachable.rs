//! Which disks an instance can have (rules A01, A03, A04, I01).

use crate::catalogue::disks::DiskRow;
use crate::catalogue::instances::InstanceRow;
use crate::error::{Code, Error, Result};
use crate::profile::Profile;

/// Whether the disk may be attached to the instance (rules A01, A03, A04, I01).
///
/// # Errors
/// [`Code::ZoneMismatch`], [`Code::LocalStorage`], [`Code::BareMetal`], [`Code::SystemDiskBound`].
pub(crate) fn check(profile: &Profile, disk: &DiskRow, instance: &InstanceRow) -> Result<()> {
    if disk.system_of.as_ref().is_some_and(|own| *own != instance.id) {
        let text = format!(
            "disk {} is the system disk of another instance, and goes with that: attach it there, or make a disk from a \
             snapshot of it",
            disk.name
        );
        return Err(Error::new(Code::SystemDiskBound, text));
    }
    if disk.zone != instance.zone {
        let text = format!(
            "disk {} is in zone {} and instance {} in zone {}: choose an instance in the disk's zone",
            disk.name, disk.zone, instance.name, instance.zone
        );
        return Err(Error::new(Code::ZoneMismatch, text));
    }
    if disk.encrypted && instance.local_storage && profile.refuse_local_storage {
        let text = format!(
            "instance {} has local storage, where data of encrypted disk {} could be left in the clear: \
             choose an instance without",
            instance.name, disk.name
        );
        return Err(Error::new(Code::LocalStorage, text));
    }
    if disk.encrypted && instance.bare_metal && profile.refuse_bare_metal {
        let text = format!(
            "instance {} is bare metal: choose a virtual machine",
            instance.name
        );
        return Err(Error::new(Code::BareMetal, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::kinds::{DiskKind, DiskType, OnFull, Role, Store};
    use crate::catalogue::states::DiskState;

    fn disk(encrypted: bool) -> DiskRow {
        DiskRow {
            id: "disk-1".into(),
            account: "default".into(),
            name: "data".into(),
            state: DiskState::Available,
            encrypted,
            size: 512,
            store: Store::Raw,
            path: None,
            identity: None,
            zone: "z1".into(),
            lineage: None,
            base: None,
            kind: DiskKind::Cloud,
            disk_type: DiskType::Ssd,
            role: Role::Data,
            system_of: None,
            shared: false,
            on_full: OnFull::Error,
            created: String::new(),
            key: None,
            key_version: None,
            key_state: None,
            attachment: None,
            instance: None,
        }
    }

    fn instance(local_storage: bool, bare_metal: bool) -> InstanceRow {
        InstanceRow {
            id: "ins-1".into(),
            account: "default".into(),
            name: "vm".into(),
            zone: "z1".into(),
            local_storage,
            bare_metal,
            vm_socket: None,
            boot_disk: None,
            socket_uid: None,
            socket_gid: None,
            socket_mode: None,
            made: true,
            created: String::new(),
        }
    }

    #[test]
    fn rule_a04_bare_metal_is_refused_where_the_profile_says_so() {
        let ours = Profile::named("sealblk").unwrap();
        let strict = Profile {
            refuse_bare_metal: true,
            ..*ours
        };
        assert!(check(ours, &disk(true), &instance(false, true)).is_ok());
        let refused = check(&strict, &disk(true), &instance(false, true)).unwrap_err();
        assert_eq!(
            (refused.code(), refused.code().rule()),
            (Code::BareMetal, Some("A04"))
        );
        assert!(check(&strict, &disk(false), &instance(false, true)).is_ok());
        assert!(check(&strict, &disk(true), &instance(false, false)).is_ok());
    }

    #[test]
    fn rule_a03_local_storage_is_allowed_where_the_profile_says_so() {
        let lax = Profile {
            refuse_local_storage: false,
            ..*Profile::named("sealblk").unwrap()
        };
        assert!(check(&lax, &disk(true), &instance(true, false)).is_ok());
    }
}
