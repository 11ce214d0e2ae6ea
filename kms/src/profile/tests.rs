//! The table, beside the one that people read.

use std::collections::HashMap;

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/rules-profiles.md");

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Each switch as the document writes it.
fn cells(profile: &Profile) -> Vec<(&'static str, String)> {
    let types = |types: &[&str]| types.join(", ");
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
    let free = profile.free_calls.map(|calls| calls.to_string());
    vec![
        ("key_scope", key_scope.to_owned()),
        ("customer_keys", yes_no(profile.customer_keys)),
        ("gate", gate.to_owned()),
        ("system_disks", system_disks.to_owned()),
        ("refuse_local_storage", yes_no(profile.refuse_local_storage)),
        ("refuse_bare_metal", yes_no(profile.refuse_bare_metal)),
        ("encryptable_types", types(profile.encryptable_types)),
        (
            "encryptable_shared_types",
            types(profile.encryptable_shared_types),
        ),
        ("share_image", yes_no(profile.share_image)),
        (
            "copy_snapshot_across_regions",
            yes_no(profile.copy_snapshot_across_regions),
        ),
        (
            "copy_image_across_regions",
            yes_no(profile.copy_image_across_regions),
        ),
        ("export_image", yes_no(profile.export_image)),
        ("new_size", new_size.to_owned()),
        ("meter_reinit", yes_no(profile.meter_reinit)),
        ("free_calls", free.unwrap_or_else(|| "unlimited".to_owned())),
        ("call_price", profile.call_price.to_string()),
        ("customer_key_fee", profile.customer_key_fee.to_string()),
    ]
}

/// Cells of the document's table by switch, and the names of its columns.
fn document() -> (Vec<&'static str>, HashMap<&'static str, Vec<&'static str>>) {
    let split = |line: &'static str| -> Vec<&'static str> {
        let cells = line.trim().trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`')).collect()
    };
    let mut lines = DOCUMENT.lines().filter(|line| line.starts_with('|')).map(split);
    let heading = lines.next().unwrap();
    let rows = lines.skip(1).map(|mut row| (row.remove(0), row.split_off(1)));
    (heading[2..].to_vec(), rows.collect())
}

#[test]
fn the_table_is_the_documented_one() {
    let (names, rows) = document();
    let ours: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
    assert_eq!(names, ours);
    for (column, profile) in PROFILES.iter().enumerate() {
        let cells = cells(profile);
        assert_eq!(cells.len(), rows.len(), "the document has other switches");
        for (switch, value) in cells {
            assert_eq!(rows[switch][column], value, "{switch} of {}", profile.name);
        }
    }
}

#[test]
fn only_fulfilled_profiles_can_be_chosen() {
    let lacking: Vec<_> = PROFILES
        .iter()
        .filter(|profile| profile.lacking().is_some())
        .map(|profile| profile.name)
        .collect();
    assert_eq!(lacking, ["tencent-cbs"]);
    assert!(!Profile::names().contains("tencent-cbs"));
    assert!(Profile::names().contains("sealblk"));
}

#[test]
fn what_is_shared_can_be_encrypted_at_all() {
    for profile in PROFILES {
        let mut shared = profile.encryptable_shared_types.iter();
        assert!(
            shared.all(|kind| profile.encryptable_types.contains(kind)),
            "{}",
            profile.name
        );
    }
}
