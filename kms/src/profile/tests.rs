//! The table, beside the one that people read.

use std::collections::HashMap;

use serde_json::Value;

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/rules-profiles.md");

/// Each switch of the API's answer as the document writes it.
fn cells(profile: &Profile) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(sealblk_api::Profile::from(profile)) else {
        panic!("a profile is an object");
    };
    let switches = fields
        .into_iter()
        .filter(|(field, _)| field != "id" && field != "name");
    switches.map(|(switch, value)| (switch, cell(&value))).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "unlimited".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
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
            assert_eq!(
                rows[switch.as_str()][column],
                value,
                "{switch} of {}",
                profile.name
            );
        }
    }
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
