//! Policy profiles: what the rules leave to a region's choice, as plain data.
//!
//! Code asks for a switch, never for a profile's name.

/// The switches that this version acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Its name at `init`.
    pub(crate) name: &'static str,
    /// Rule K01: the account activates the KMS before its first encrypted disk.
    pub(crate) activation_required: bool,
    /// Rule A03: encrypted disks are not attached to instances with local storage.
    pub(crate) refuse_local_storage: bool,
    /// Rule A04: encrypted disks are not attached to bare-metal instances.
    pub(crate) refuse_bare_metal: bool,
    /// Rule D02: types of cloud disks that can be encrypted.
    pub(crate) encryptable_types: &'static [&'static str],
    /// Rule S06: encrypted snapshots can be copied to another region.
    pub(crate) copy_snapshot_across_regions: bool,
}

/// Every profile that this version fulfils completely.
const PROFILES: &[Profile] = &[Profile {
    name: "sealblk",
    activation_required: true,
    refuse_local_storage: true,
    refuse_bare_metal: false,
    encryptable_types: &["basic", "efficiency", "ssd", "essd"],
    copy_snapshot_across_regions: false,
}];

impl Profile {
    /// The profile of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
        names.join(", ")
    }
}
