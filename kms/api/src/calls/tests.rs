//! The list, and the document that is made of it.

use std::collections::BTreeSet;

use super::*;
use crate::call::{Method, Tags};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/calls.md");
const MARK: &str = "| call | does | roles | body | answer |\n|---|---|---|---|---|\n";

fn row(call: &Listed) -> String {
    let spec = &call.spec;
    let roles = match spec.roles.len() {
        4 => "all".to_owned(),
        _ => spec
            .roles
            .iter()
            .map(|role| role.name())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let query = match spec.parameters {
        [] => String::new(),
        parameters => {
            let names: Vec<_> = parameters.iter().map(|parameter| parameter.name).collect();
            format!("?{}", names.join("&"))
        }
    };
    let header = match (spec.tags, spec.idempotent) {
        (Tags::Given, _) => ", `ETag`",
        (Tags::Matched, _) => ", `If-Match`",
        (Tags::None, true) => ", `Idempotency-Key`",
        (Tags::None, false) => "",
    };
    let metered = if spec.meter.is_some() { ", metered" } else { "" };
    let body = match call.body {
        "" => String::new(),
        body => format!("`{body}`"),
    };
    format!(
        "| `{} {}{query}` | {} | {roles} | {body} | {} `{}`{header}{metered} |\n",
        spec.method.name(),
        spec.path,
        spec.summary(),
        spec.status,
        call.answer,
    )
}

/// What is secret, or lets in whoever has it, is in no record.
#[test]
fn no_secret_of_a_body_is_recorded() {
    const SECRET: [&str; 5] = ["material", "passphrase", "password", "secret", "token"];
    let import = ALL.iter().find(|call| call.spec.audit == Some("key.import"));
    assert_eq!(import.unwrap().spec.hidden, ["import_token", "wrapped_material"]);
    // What is in an answer and in no body.
    const ANSWERED: [(&str, &str); 1] = [("ImportParams", "import_token")];
    for source in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let path = source.unwrap().path();
        let text = match path.extension() {
            Some(_) => std::fs::read_to_string(&path).unwrap(),
            None => continue,
        };
        let is_api = text.contains("ToSchema");
        let mut object = "";
        for line in text.lines().filter(|_| is_api) {
            let Some(line) = line.trim().strip_prefix("pub ") else {
                continue;
            };
            if let Some(name) = line.strip_prefix("struct ") {
                object = name.split([' ', ';', '(', '<']).next().unwrap();
            }
            let field = line.split_once(": ").map_or("", |(name, _)| name);
            if !SECRET.iter().any(|word| field.contains(word)) {
                continue;
            }
            let bodies: Vec<_> = ALL.iter().filter(|call| call.body == object).collect();
            for call in &bodies {
                assert!(
                    call.spec.hidden.contains(&field),
                    "{} {object}.{field}",
                    call.spec.path
                );
            }
            // Fields within fields of a body are not hidden by their names.
            assert!(
                !bodies.is_empty() || ANSWERED.contains(&(object, field)),
                "{object}.{field}"
            );
        }
    }
}

#[test]
fn the_table_in_the_documentation_is_the_list() {
    let rows: String = ALL.iter().map(row).collect();
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (head, found) = document.split_once(MARK).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(DOCUMENT, [head, MARK, &rows].concat()).unwrap();
        return;
    }
    assert!(
        found == rows,
        "docs/calls.md is not the list of calls: run this test with UPDATE=1"
    );
}

#[test]
fn no_call_is_listed_twice() {
    let calls: BTreeSet<_> = ALL
        .iter()
        .map(|call| (call.spec.method.name(), call.spec.path))
        .collect();
    assert_eq!(calls.len(), ALL.len());
    let names: Vec<_> = ALL.iter().filter_map(|call| call.spec.audit).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn what_changes_something_is_recorded_and_what_reads_is_not() {
    for Listed { spec, .. } in ALL {
        assert_eq!(spec.audit.is_some(), spec.method != Method::Get, "{}", spec.path);
        assert!(
            spec.tags == Tags::None || spec.object().is_some(),
            "{}",
            spec.path
        );
        assert!(!spec.roles.is_empty(), "{}", spec.path);
    }
}

#[test]
fn keys_and_the_audit_log_are_not_operators_affair() {
    let roles = |method: Method, path: &str| {
        let call = ALL
            .iter()
            .find(|call| (call.spec.method, call.spec.path) == (method, path));
        call.unwrap().spec.roles
    };
    for Listed { spec, .. } in ALL {
        let of_keys = spec.path.starts_with("/v1/keys") || spec.path.starts_with("/v1/kms");
        if of_keys && spec.method != Method::Get {
            assert_eq!(spec.roles, SECURITY, "{}", spec.path);
        }
    }
    assert_eq!(roles(Method::Get, "/v1/keys/{key}"), Role::ALL);
    assert_eq!(roles(Method::Get, "/v1/usage"), Role::ALL);
    assert_eq!(roles(Method::Post, "/v1/disks"), [Role::Operator, Role::Admin]);
    assert_eq!(roles(Method::Get, "/v1/audit"), AUDITORS);
    assert_eq!(roles(Method::Get, "/v1/audit/verify"), AUDITORS);
    assert_eq!(roles(Method::Get, "/v1/audit/archive"), SECURITY);
    assert_eq!(roles(Method::Post, "/v1/audit/archive"), SECURITY);
    assert_eq!(roles(Method::Get, "/v1/accounts"), [Role::Admin, Role::Auditor]);
    assert_eq!(roles(Method::Post, "/v1/accounts/{account}/credit"), ADMINS);
}
