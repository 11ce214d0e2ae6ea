//! What a record says besides who asked for what: see `docs/audit.md`.

use serde_json::Value;
use sqlx::SqliteConnection;

use crate::caller::Caller;
use crate::catalogue::{lineages, volumes};
use crate::id::{self, Kind};
use crate::limits;
use sealblk_api::{Details, text_of};

/// What the caller asked for, in the call's words.
pub(crate) const ASKED: &str = "asked";

/// Stands for what was cut.
const MARK: &str = "…";

/// The kinds of objects whose records are found by their ids.
const INDEXED: [Kind; 3] = [Kind::Disk, Kind::Key, Kind::Instance];

/// What is known of the call by now, with the key of the lineage that it is about.
///
/// # Errors
/// The catalogue's.
pub(super) async fn of(db: &mut SqliteConnection, caller: &Caller) -> Result<Option<Details>, sqlx::Error> {
    let facts = &caller.facts;
    let known = facts.all();
    if !known.contains_key("lineage") && !known.contains_key("key") {
        let volume = known.get("disk").or_else(|| known.get("source"));
        if let Some(volume) = volume.and_then(Value::as_str) {
            facts.note_if("lineage", volumes::lineage(db, volume).await?);
        }
    }
    if let Some(Value::String(lineage)) = facts.all().get("lineage")
        // The lineage of a new disk is gone when its creation was undone.
        && let Some((key, version)) = lineages::key_of(db, lineage).await?
    {
        facts.note("key", key);
        facts.note("key_version", version);
    }
    let details = facts.all();
    Ok((!details.is_empty()).then(|| bounded(details)))
}

/// Ids by which a record is found: of its request and of the objects that it is about.
pub(super) fn ids<'a>(request: &'a str, details: Option<&'a Details>) -> impl Iterator<Item = &'a str> {
    let values = details.into_iter().flatten();
    // What a caller has made up looks like anything.
    let values = values.filter(|(name, _)| *name != ASKED);
    let texts = values.flat_map(|(_, value)| match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    });
    let is_indexed = |text: &&str| INDEXED.iter().any(|kind| id::is_of(text, *kind));
    std::iter::once(request).chain(texts.filter(is_indexed))
}

/// Details of at most [`limits::AUDIT_DETAILS_BYTES`]: what is long in them is cut, and in the end the longest are left out.
fn bounded(mut details: Details) -> Details {
    let fits = |details: &Details| text_of(details).len() <= limits::AUDIT_DETAILS_BYTES;
    for most in [limits::AUDIT_TEXT_BYTES, limits::AUDIT_OBJECT_BYTES] {
        if fits(&details) {
            return details;
        }
        details.values_mut().for_each(|value| shorten(value, most));
    }
    let mut by_length: Vec<_> = details
        .iter()
        .map(|(name, value)| (value.to_string().len(), name.clone()))
        .collect();
    by_length.sort();
    while !fits(&details)
        && let Some((_, longest)) = by_length.pop()
    {
        details.insert(longest, MARK.into());
    }
    details
}

fn shorten(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => *text = cut(text, most),
        Value::Array(several) => {
            let more = several.len().saturating_sub(limits::AUDIT_ITEMS);
            if more > 0 {
                several.truncate(limits::AUDIT_ITEMS);
                several.push(format!("{MARK} {more} more").into());
            }
            several.iter_mut().for_each(|value| shorten(value, most));
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| shorten(value, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// At most so many bytes of what a caller may have made up, in whole characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most - MARK.len());
    format!("{}{MARK}", &text[..end])
}

/// A body as it was sent, without what is not said, and without what nobody else may see.
pub(crate) fn asked(body: Value, sent: &Value, hidden: &[&str]) -> Option<Value> {
    let Value::Object(mut fields) = without_defaults(body, sent) else {
        return None;
    };
    fields.retain(|name, _| !hidden.contains(&name.as_str()));
    let said = said(Value::Object(fields));
    (!is_nothing(&said)).then_some(said)
}

/// Of a body that was understood, the fields that were sent; all of those that came without their names.
fn without_defaults(body: Value, sent: &Value) -> Value {
    match (body, sent) {
        (Value::Object(fields), Value::Object(sent)) => {
            let fields = fields.into_iter().filter_map(|(name, value)| {
                let value = without_defaults(value, sent.get(&name)?);
                Some((name, value))
            });
            fields.collect()
        }
        (Value::Array(several), Value::Array(sent)) => {
            let several = several.into_iter().zip(sent);
            several
                .map(|(value, sent)| without_defaults(value, sent))
                .collect()
        }
        (other, _) => other,
    }
}

fn said(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, said(value)));
            fields.filter(|(_, value)| !is_nothing(value)).collect()
        }
        Value::Array(several) => several.into_iter().map(said).collect(),
        other => other,
    }
}

/// What a field holds that was left out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(several) => several.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::json;

    fn details(value: Value) -> Details {
        let Value::Object(details) = value else {
            unreachable!()
        };
        details
    }

    #[test]
    fn what_was_asked_for_is_what_was_said_and_no_secret() {
        let body = json!({"name": "a", "force": false, "size": 0, "key": null, "tags": {}, "disks": [{"name": "b", "key": null}],
                          "token": "t"});
        let expected = json!({"name": "a", "size": 0, "disks": [{"name": "b"}]});
        let of = |body: Value, hidden: &[&str]| asked(body.clone(), &body, hidden);
        assert_eq!(of(body, &["token"]), Some(expected));
        assert_eq!(of(json!({"token": "t"}), &["token"]), None);
        assert_eq!(of(json!(null), &[]), None);
    }

    #[test]
    fn what_the_daemon_has_added_was_not_asked_for() {
        let body = json!({"name": "a", "start": true, "disks": [{"name": "b", "type": "data"}, {"name": "c", "type": "system"}]});
        let sent = json!({"disks": [{"name": "b"}, {"type": "system", "name": "c"}], "name": "a"});
        assert_eq!(asked(body.clone(), &sent, &[]), Some(sent));
        assert_eq!(asked(body.clone(), &json!({}), &[]), None);
        // JSON's readers take an array for an object, too: then nothing is to be hidden by that.
        let names_left_out = json!(["a", true, [["b"], ["c", "system"]]]);
        assert_eq!(asked(body.clone(), &names_left_out, &[]), Some(body));
    }

    #[test]
    fn details_are_bounded_and_keep_the_ids() {
        let disk = id::new(Kind::Disk).unwrap();
        for asked in [
            json!({"file": format!("/{}", "é".repeat(3000))}),
            json!({"name": "\u{1}".repeat(60_000)}),
            json!({"disks": vec![json!({"name": "x".repeat(128)}); 500]}),
            json!({"tags": (0..500).map(|tag| (format!("tag-{tag}"), json!("v"))).collect::<Details>()}),
        ] {
            let bounded = bounded(details(json!({"disk": disk, "asked": asked})));
            assert!(text_of(&bounded).len() <= limits::AUDIT_DETAILS_BYTES);
            assert_eq!(bounded["disk"], disk.as_str());
            assert!(text_of(&bounded).contains('…'));
        }
        let short = details(json!({"disk": disk, "asked": {"file": "/x".repeat(500)}}));
        assert_eq!(bounded(short.clone()), short);
    }

    #[test]
    fn many_users_fit_into_the_record_of_a_load() {
        let uids: Vec<u32> = (0..10_000).map(|uid| u32::MAX - 1 - uid).collect();
        let bounded = bounded(details(
            json!({"principals": uids.len(), "added": uids, "removed": uids}),
        ));
        assert!(text_of(&bounded).len() <= limits::AUDIT_DETAILS_BYTES);
        assert_eq!(bounded["principals"], 10_000);
        assert_eq!(bounded.len(), 3, "nobody has asked for anything");
        for name in ["added", "removed"] {
            let listed = bounded[name].as_array().unwrap();
            assert_eq!(listed[..100], json!(uids).as_array().unwrap()[..100]);
            assert_eq!(listed[100..], ["… 9900 more"]);
        }
    }

    proptest! {
        #[test]
        fn whatever_it_is_details_are_bounded(values in vec(anything(), 1..6), times in 1..40_usize) {
            let names = ["added", "asked", "disk", "file", "reason", "removed"];
            let long = names.into_iter().zip(values).map(|(name, value)| {
                (name.to_owned(), json!(vec![value; times]))
            });
            let long: Details = long.collect();
            let names = long.len();
            let bounded = bounded(long.clone());
            prop_assert!(text_of(&bounded).len() <= limits::AUDIT_DETAILS_BYTES);
            prop_assert_eq!(bounded.len(), names);
            prop_assert!(bounded == long || text_of(&bounded).contains(MARK));
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        let one = prop_oneof![
            any::<Option<bool>>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,300}".prop_map(Value::from),
        ];
        one.prop_recursive(4, 200, 20, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..20).prop_map(Value::from),
                btree_map(".{0,40}", inner, 0..20).prop_map(|fields| json!(fields)),
            ]
        })
    }

    #[test]
    fn a_record_is_found_by_its_disks_keys_and_instances_and_not_by_what_was_made_up() {
        let [disk, other, key, instance] =
            [Kind::Disk, Kind::Disk, Kind::Key, Kind::Instance].map(|kind| id::new(kind).unwrap());
        let details = details(
            json!({"disks": [disk, "disk-"], "source": "disk-x y", "key": key, "instance": instance,
                                     "lineage": "lin-a", "asked": {"disk": other}, "size": 5}),
        );
        let found: Vec<_> = ids("req-1", Some(&details)).collect();
        assert_eq!(found, ["req-1", &disk, &instance, &key]);
    }
}
