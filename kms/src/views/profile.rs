//! `GET /v1/profile`.

use crate::profile::{Gate, KeyScope, NewSize, Profile, SystemDisks};

impl From<&Profile> for sealblk_api::Profile {
    fn from(profile: &Profile) -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let key_scope = match profile.key_scope {
            KeyScope::Region => "region",
            KeyScope::Disk => "disk",
        };
        let gate = match profile.gate {
            Gate::Activation => "activation",
            Gate::Grant => "grant",
        };
        let system_disks = match profile.system_disks {
            SystemDisks::No => "no",
            SystemDisks::ByImage => "by-image",
            SystemDisks::Yes => "yes",
        };
        let new_size = match profile.new_size {
            NewSize::Live => "live",
            NewSize::AfterReattach => "after-reattach",
        };
        sealblk_api::Profile {
            id: profile.name.to_owned(),
            name: profile.name.to_owned(),
            key_scope: key_scope.to_owned(),
            customer_keys: profile.customer_keys,
            gate: gate.to_owned(),
            system_disks: system_disks.to_owned(),
            refuse_local_storage: profile.refuse_local_storage,
            refuse_bare_metal: profile.refuse_bare_metal,
            encryptable_types: texts(profile.encryptable_types),
            encryptable_shared_types: texts(profile.encryptable_shared_types),
            share_image: profile.share_image,
            copy_snapshot_across_regions: profile.copy_snapshot_across_regions,
            copy_image_across_regions: profile.copy_image_across_regions,
            export_image: profile.export_image,
            new_size: new_size.to_owned(),
            meter_reinit: profile.meter_reinit,
            free_calls: profile.free_calls,
            call_price: profile.call_price,
            customer_key_fee: profile.customer_key_fee,
            retention: profile.retention,
        }
    }
}
