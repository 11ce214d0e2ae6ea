//! Policy profiles: what the rules leave to a region's choice, as plain data.
//!
//! Code asks for a switch, never for a profile's name. Where a service says nothing, its column has what the rules
//! take then; `docs/rules-profiles.md` is the same table for people, and a test compares the two.

pub(crate) mod stored;
#[cfg(test)]
mod tests;

/// Amounts are integers in millionths of the unit in which balances are kept.
pub(crate) type MicroUnits = u64;

/// All switches of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The name that `init` knows it by.
    pub(crate) name: &'static str,
    /// Rule K04: what shares a data key.
    pub(crate) key_scope: KeyScope,
    /// Rule K08: accounts can have keys of their own.
    pub(crate) customer_keys: bool,
    /// Rules K01 and K02: what comes before the first encrypted disk.
    pub(crate) gate: Gate,
    /// Rule I01: what decides whether a system disk is encrypted.
    pub(crate) system_disks: SystemDisks,
    /// Rule A03: encrypted disks are not attached to instances with local storage.
    pub(crate) refuse_local_storage: bool,
    /// Rule A04: encrypted disks are not attached to bare-metal instances.
    pub(crate) refuse_bare_metal: bool,
    /// Rule D02: types of disks that can be encrypted.
    pub(crate) encryptable_types: &'static [&'static str],
    /// Rules D02 and D09: those of them that can be encrypted and shared.
    pub(crate) encryptable_shared_types: &'static [&'static str],
    /// Rule I05: an image with an encrypted snapshot can be shared with another account.
    pub(crate) share_image: bool,
    /// Rule S06: encrypted snapshots can be copied to another region.
    pub(crate) copy_snapshot_across_regions: bool,
    /// Rule I06: encrypted images can be copied to another region.
    pub(crate) copy_image_across_regions: bool,
    /// Rule I07: encrypted images can be exported.
    pub(crate) export_image: bool,
    /// Rule D06: when a guest sees that its disk has grown.
    pub(crate) new_size: NewSize,
    /// Rule M01: making a disk empty counts as a call.
    pub(crate) meter_reinit: bool,
    /// Rule M02: metered calls of an account that are free each month, over all regions; without a number, all.
    pub(crate) free_calls: Option<u64>,
    /// Rule M02: what a call costs beyond the free ones.
    pub(crate) call_price: MicroUnits,
    /// Rule M03: what a customer key costs each month.
    pub(crate) customer_key_fee: MicroUnits,
    /// Rule K14: days for which a deleted disk is in the bin, unless its owner asks for others.
    pub(crate) retention: u16,
}

/// What shares a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyScope {
    /// All disks of an account in the region.
    Region,
    /// A disk, its snapshots and the disks made from them.
    Disk,
}

/// What comes before the first encrypted disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The account activates the KMS (rule K01).
    Activation,
    /// A Security Administrator grants the disk service the use of the KMS (rule K02).
    Grant,
}

/// What decides whether a system disk is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemDisks {
    /// Never.
    No,
    /// The image alone.
    ByImage,
    /// The choice at purchase, and its image.
    Yes,
}

/// When a guest sees that its disk has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewSize {
    /// At once, where it can.
    Live,
    /// After the disk was detached and attached again.
    AfterReattach,
}

/// Every type of cloud disk.
const CLOUD_TYPES: &[&str] = &["basic", "efficiency", "ssd", "essd"];

const PROFILES: &[Profile] = &[
    Profile {
        name: "tencent-cbs",
        key_scope: KeyScope::Region,
        customer_keys: false,
        gate: Gate::Activation,
        system_disks: SystemDisks::No,
        refuse_local_storage: true,
        refuse_bare_metal: false,
        encryptable_types: CLOUD_TYPES,
        encryptable_shared_types: CLOUD_TYPES,
        share_image: false,
        copy_snapshot_across_regions: false,
        copy_image_across_regions: false,
        export_image: false,
        new_size: NewSize::AfterReattach,
        meter_reinit: false,
        free_calls: Some(0),
        call_price: 100,
        customer_key_fee: 0,
        retention: 0,
    },
    Profile {
        name: "alibaba-ecs-classic",
        key_scope: KeyScope::Disk,
        customer_keys: false,
        gate: Gate::Activation,
        system_disks: SystemDisks::No,
        refuse_local_storage: false,
        refuse_bare_metal: false,
        encryptable_types: &["basic", "efficiency", "ssd"],
        encryptable_shared_types: &["efficiency", "ssd"],
        share_image: false,
        copy_snapshot_across_regions: false,
        copy_image_across_regions: false,
        export_image: false,
        new_size: NewSize::AfterReattach,
        meter_reinit: true,
        free_calls: Some(20_000),
        call_price: 100,
        customer_key_fee: 0,
        retention: 0,
    },
    Profile {
        name: "alibaba-ecs",
        key_scope: KeyScope::Disk,
        customer_keys: true,
        gate: Gate::Activation,
        system_disks: SystemDisks::ByImage,
        refuse_local_storage: false,
        refuse_bare_metal: true,
        encryptable_types: &["basic", "efficiency", "ssd"],
        encryptable_shared_types: &["basic", "efficiency", "ssd"],
        share_image: false,
        copy_snapshot_across_regions: false,
        copy_image_across_regions: false,
        export_image: false,
        new_size: NewSize::AfterReattach,
        meter_reinit: true,
        free_calls: None,
        call_price: 0,
        customer_key_fee: 1_000_000,
        retention: 0,
    },
    Profile {
        name: "huawei-evs",
        key_scope: KeyScope::Disk,
        customer_keys: true,
        gate: Gate::Grant,
        system_disks: SystemDisks::Yes,
        refuse_local_storage: false,
        refuse_bare_metal: false,
        encryptable_types: CLOUD_TYPES,
        encryptable_shared_types: CLOUD_TYPES,
        share_image: false,
        copy_snapshot_across_regions: false,
        copy_image_across_regions: false,
        export_image: false,
        new_size: NewSize::AfterReattach,
        meter_reinit: true,
        free_calls: None,
        call_price: 0,
        customer_key_fee: 0,
        retention: 0,
    },
    Profile {
        name: "sealblk",
        key_scope: KeyScope::Disk,
        customer_keys: true,
        gate: Gate::Activation,
        system_disks: SystemDisks::Yes,
        refuse_local_storage: true,
        refuse_bare_metal: false,
        encryptable_types: CLOUD_TYPES,
        encryptable_shared_types: CLOUD_TYPES,
        share_image: false,
        copy_snapshot_across_regions: false,
        copy_image_across_regions: false,
        export_image: false,
        new_size: NewSize::Live,
        meter_reinit: true,
        free_calls: None,
        call_price: 0,
        customer_key_fee: 0,
        retention: 7,
    },
];

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
