//! The switches that a region was initialised with stay as they were: its catalogue keeps them, and a later version of this program
//! that has others under the profile's name does not change the region's rules. Switches that only the later version knows are
//! as that has them when it first sees the region, and stay so from then on.

use serde_json::{Map, Value};

use super::{CLOUD_TYPES, Gate, KeyScope, NewSize, Profile, SystemDisks};
use crate::error::{Code, Error, Result};

/// The profile of a region.
pub(crate) struct OfRegion {
    pub(crate) profile: &'static Profile,
    /// What the catalogue is to keep from now on.
    pub(crate) switches: String,
    /// Names of the switches of which this version would have another value for a new region.
    pub(crate) others: Vec<String>,
}

/// As the catalogue keeps the switches: an object of JSON with the names of `GET /v1/profile`.
///
/// # Errors
/// [`Code::Internal`].
pub(crate) fn switches_of(profile: &Profile) -> Result<String> {
    Ok(Value::Object(switches(profile)?).to_string())
}

/// The profile of a region that was initialised with the one of this name; `kept` is what its catalogue has, if it has it yet.
///
/// # Errors
/// [`Code::UnknownProfile`]: this version does not know the profile, or what a switch says.
pub(crate) fn of_region(name: &str, kept: Option<&str>) -> Result<OfRegion> {
    let ours = Profile::named(name).ok_or_else(|| {
        let text = format!(
            "this version has no profile {name:?}; it has: {}",
            Profile::names()
        );
        Error::new(Code::UnknownProfile, text)
    })?;
    let new = switches(ours)?;
    let kept = match kept.map(serde_json::from_str::<Map<String, Value>>) {
        None => Map::new(),
        Some(Ok(kept)) => kept,
        Some(Err(error)) => {
            return Err(Error::because(
                Code::UnknownProfile,
                "the region's switches are not read",
                error,
            ));
        }
    };
    let mut all = new.clone();
    all.extend(kept.clone());
    let others = kept
        .iter()
        .filter(|(switch, value)| new.get(*switch) != Some(value));
    let others: Vec<_> = others.map(|(switch, _)| switch.clone()).collect();
    let profile = match others.is_empty() {
        true => ours,
        false => Box::leak(Box::new(read(ours.name, &all)?)),
    };
    Ok(OfRegion {
        profile,
        switches: Value::Object(all).to_string(),
        others,
    })
}

fn switches(profile: &Profile) -> Result<Map<String, Value>> {
    let internal = || Error::new(Code::Internal, "a profile is an object");
    let Ok(Value::Object(mut fields)) = serde_json::to_value(sealblk_api::Profile::from(profile)) else {
        return Err(internal());
    };
    // The profile's name is beside them.
    fields.retain(|field, _| field != "id" && field != "name");
    Ok(fields)
}

fn read(name: &'static str, switches: &Map<String, Value>) -> Result<Profile> {
    let unknown = |error: serde_json::Error| {
        Error::because(
            Code::UnknownProfile,
            "this version does not know the region's switches",
            error,
        )
    };
    let mut fields = switches.clone();
    for field in ["id", "name"] {
        fields.insert(field.to_owned(), name.into());
    }
    let said: sealblk_api::Profile = serde_json::from_value(Value::Object(fields)).map_err(unknown)?;
    Ok(Profile {
        name,
        key_scope: choose(
            &said.key_scope,
            &[("region", KeyScope::Region), ("disk", KeyScope::Disk)],
        )?,
        customer_keys: said.customer_keys,
        gate: choose(
            &said.gate,
            &[("activation", Gate::Activation), ("grant", Gate::Grant)],
        )?,
        system_disks: choose(
            &said.system_disks,
            &[
                ("no", SystemDisks::No),
                ("by-image", SystemDisks::ByImage),
                ("yes", SystemDisks::Yes),
            ],
        )?,
        refuse_local_storage: said.refuse_local_storage,
        refuse_bare_metal: said.refuse_bare_metal,
        encryptable_types: types(&said.encryptable_types)?,
        encryptable_shared_types: types(&said.encryptable_shared_types)?,
        share_image: said.share_image,
        copy_snapshot_across_regions: said.copy_snapshot_across_regions,
        copy_image_across_regions: said.copy_image_across_regions,
        export_image: said.export_image,
        new_size: choose(
            &said.new_size,
            &[
                ("live", NewSize::Live),
                ("after-reattach", NewSize::AfterReattach),
            ],
        )?,
        meter_reinit: said.meter_reinit,
        free_calls: said.free_calls,
        call_price: said.call_price,
        customer_key_fee: said.customer_key_fee,
        retention: said.retention,
    })
}

fn choose<T: Copy>(said: &str, known: &[(&str, T)]) -> Result<T> {
    let found = known.iter().find(|(name, _)| *name == said);
    found.map(|(_, value)| *value).ok_or_else(|| not_known(said))
}

/// Read once, at the start, and there as long as the process.
fn types(said: &[String]) -> Result<&'static [&'static str]> {
    let known = |name: &String| CLOUD_TYPES.iter().find(|known| *known == name).copied();
    let types = said.iter().map(|name| known(name).ok_or_else(|| not_known(name)));
    Ok(types.collect::<Result<Vec<_>>>()?.leak())
}

fn not_known(said: &str) -> Error {
    let text = format!("this version does not know {said:?}, which a switch of the region says");
    Error::new(Code::UnknownProfile, text)
}

#[cfg(test)]
mod tests {
    use super::super::PROFILES;
    use super::*;

    #[test]
    fn every_profile_is_read_as_it_was_kept() {
        for profile in PROFILES {
            let kept = switches(profile).unwrap();
            assert_eq!(read(profile.name, &kept).unwrap(), *profile);
            let region = of_region(profile.name, Some(&switches_of(profile).unwrap())).unwrap();
            assert_eq!((region.profile, region.others.len()), (profile, 0));
        }
    }

    /// A later version has other switches under the name.
    #[test]
    fn a_region_keeps_what_it_was_initialised_with_and_takes_what_is_new() {
        let ours = Profile::named("sealblk").unwrap();
        let mut kept = switches(ours).unwrap();
        kept.insert("refuse_local_storage".to_owned(), false.into());
        kept.insert("encryptable_types".to_owned(), vec!["ssd"].into());
        kept.remove("customer_key_fee").unwrap();
        let region = of_region("sealblk", Some(&Value::Object(kept.clone()).to_string())).unwrap();
        let expected = Profile {
            refuse_local_storage: false,
            encryptable_types: &["ssd"],
            ..*ours
        };
        assert_eq!(*region.profile, expected);
        assert_eq!(region.others, ["encryptable_types", "refuse_local_storage"]);
        kept.insert("customer_key_fee".to_owned(), ours.customer_key_fee.into());
        assert_eq!(
            region.switches,
            Value::Object(kept).to_string(),
            "and it stays so"
        );
    }

    #[test]
    fn a_catalogue_that_keeps_none_takes_this_version_s() {
        let region = of_region("alibaba-ecs", None).unwrap();
        let ours = Profile::named("alibaba-ecs").unwrap();
        assert_eq!(
            (region.profile, region.switches),
            (ours, switches_of(ours).unwrap())
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for kept in ["", "{\"gate\":\"none\"}", "{\"gate\":1}"] {
            let refused = of_region("sealblk", Some(kept)).err().unwrap();
            assert_eq!(refused.code(), Code::UnknownProfile, "{kept}");
        }
        assert_eq!(
            of_region("other", None).err().unwrap().code(),
            Code::UnknownProfile
        );
    }
}
