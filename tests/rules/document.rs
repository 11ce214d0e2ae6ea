//! `docs/rules.md`: made of the list of rules, the table of profiles and the names of the tests, and compared with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::list::{KINDS, NOT_BUILT, RULES, Rule};
use crate::scene::PROFILES;

const INTRODUCTION: &str = "\
# Rules

What sealblk promises, numbered so that code, tests and refusals can name a rule: a refused call answers with a stable code,
the number of the rule, and a sentence that says what to do instead, and has changed nothing.

Regions differ by their policy profile ([rules-profiles.md](rules-profiles.md)); where a rule does, the profiles that depart
from the usual value are named. Every rule has a module in `tests/rules/` that shows what it allows and what it refuses on the
real daemons. The other tests named here go deeper.

This file is made by `UPDATE=1 cargo nextest run -p sealblk-rules document`; a test fails if it is not up to date.
";

/// A test that is named after rules.
struct Test {
    name: String,
    /// Relative to the root of the sources.
    file: String,
    rules: Vec<String>,
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// All tests of the project that are named after rules, by file.
fn tests() -> Vec<Test> {
    let root = root();
    let mut files = Vec::new();
    for directory in ["kms", "src", "tests"] {
        rust_files(&root.join(directory), &mut files);
    }
    files.sort();
    let tests_in = |path: &PathBuf| {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let names = test_names(&fs::read_to_string(path).unwrap());
        names.into_iter().map(move |name| Test {
            rules: rules_in(&name),
            name,
            file: file.clone(),
        })
    };
    files.iter().flat_map(tests_in).collect()
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Names of the functions under `#[test]` or `#[tokio::test]` that begin with `rule_`.
fn test_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with('#') {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            continue;
        }
        let function = line.strip_prefix("async ").unwrap_or(line);
        let name = function
            .strip_prefix("fn ")
            .and_then(|rest| rest.split('(').next());
        if let Some(name) = name.filter(|name| is_test && name.starts_with("rule_")) {
            names.push(name.to_owned());
        }
        is_test = false;
    }
    names
}

/// `rule_k04_k05_each_disk_…` is named after K04 and K05.
fn rules_in(name: &str) -> Vec<String> {
    let words = name.split('_').skip(1);
    let is_rule = |word: &&str| {
        let bytes = word.as_bytes();
        bytes.len() == 3 && bytes[0].is_ascii_lowercase() && bytes[1..].iter().all(u8::is_ascii_digit)
    };
    words.take_while(is_rule).map(str::to_uppercase).collect()
}

/// What the profiles have for a rule's switches, from the rows of `docs/rules-profiles.md`: the usual value, and who
/// departs from it.
fn switches() -> BTreeMap<String, Vec<String>> {
    let document = fs::read_to_string(root().join("docs/rules-profiles.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with('|'));
    let mut cells = rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    let heading = cells.next().unwrap();
    assert_eq!(heading[2..], PROFILES.map(|profile| format!("`{profile}`")));
    let mut switches = BTreeMap::<String, Vec<String>>::new();
    for row in cells.skip(1) {
        for rule in row[1].split(", ") {
            let text = format!("{}: {}", row[0], by_value(&heading[2..], &row[2..]));
            switches.entry(rule.to_owned()).or_default().push(text);
        }
    }
    switches
}

/// `no; yes in A, B`.
fn by_value(profiles: &[&str], values: &[&str]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (profile, value) in profiles.iter().zip(values) {
        match groups.iter_mut().find(|(other, _)| other == value) {
            Some((_, members)) => members.push(profile),
            None => groups.push((value, vec![profile])),
        }
    }
    groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    let mut text = groups[0].0.to_owned();
    for (value, members) in &groups[1..] {
        let _ = write!(text, "; {value} in {}", members.join(", "));
    }
    text
}

fn document() -> String {
    let (tests, switches) = (tests(), switches());
    let mut text = INTRODUCTION.to_owned();
    for (letter, title) in KINDS {
        let _ = writeln!(
            text,
            "\n## {letter}: {title}\n\n| rule | | profiles | tests |\n|---|---|---|---|"
        );
        for rule in RULES.iter().filter(|rule| rule.id.starts_with(letter)) {
            let profiles = switches.get(rule.id).map(|lines| lines.join("<br>"));
            let _ = writeln!(
                text,
                "| **{}** | {} | {} | {} |",
                rule.id,
                rule.sentence,
                profiles.unwrap_or_default(),
                tests_cell(rule, &tests)
            );
        }
    }
    text
}

/// Files with a link, each with its tests; and what is not built.
fn tests_cell(rule: &Rule, tests: &[Test]) -> String {
    let mut files = BTreeMap::<&str, Vec<String>>::new();
    for test in tests
        .iter()
        .filter(|test| test.rules.iter().any(|id| id == rule.id))
    {
        files
            .entry(&test.file)
            .or_default()
            .push(format!("`{}`", test.name));
    }
    // Its own module first.
    let module = format!("tests/rules/{}.rs", rule.id.to_lowercase());
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by_key(|(file, _)| *file != module);
    let lines = files
        .iter()
        .map(|(file, names)| format!("[{file}](../{file}): {}", names.join(", ")));
    let missing = NOT_BUILT.iter().filter(|(id, _)| *id == rule.id);
    let missing = missing.map(|(_, what)| format!("not built yet: {what}"));
    missing.chain(lines).collect::<Vec<_>>().join("<br>")
}

#[test]
fn the_document_is_up_to_date() {
    let (path, document) = (root().join("docs/rules.md"), document());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &document).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let lines = written.lines().zip(document.lines()).enumerate();
    for (number, (written, made)) in lines {
        assert_eq!(
            written,
            made,
            "line {} of docs/rules.md: run with UPDATE=1",
            number + 1
        );
    }
    assert!(
        written == document,
        "docs/rules.md ends elsewhere: run with UPDATE=1"
    );
}

#[test]
fn every_rule_has_a_module_with_a_test_or_is_known_not_to_be_built() {
    let tests = tests();
    let mut missing = Vec::new();
    for rule in RULES {
        let module = format!("tests/rules/{}.rs", rule.id.to_lowercase());
        let in_module = tests.iter().filter(|test| test.file == module);
        let shown = in_module
            .clone()
            .any(|test| test.rules.iter().any(|id| id == rule.id));
        let known = NOT_BUILT.iter().any(|(id, _)| *id == rule.id);
        if shown == known {
            missing.push(rule.id);
        }
        for test in in_module {
            assert_eq!(test.rules, [rule.id], "{} in {module}", test.name);
        }
    }
    assert_eq!(
        missing,
        Vec::<&str>::new(),
        "without a module, or with one and in NOT_BUILT"
    );
}

#[test]
fn tests_and_profiles_name_rules_of_the_list() {
    let is_rule = |id: &str| RULES.iter().any(|rule| rule.id == id);
    for test in tests() {
        assert!(
            !test.rules.is_empty(),
            "{} in {} names no rule",
            test.name,
            test.file
        );
        for id in &test.rules {
            assert!(
                is_rule(id),
                "{} in {}: there is no rule {id}",
                test.name,
                test.file
            );
        }
    }
    assert!(switches().keys().all(|id| is_rule(id)));
    assert!(NOT_BUILT.iter().all(|(id, _)| is_rule(id)));
}

#[test]
fn names_are_read_as_they_are_meant() {
    let source = "#[test]\nfn rule_k04_k05_each() {\n}\nfn rule_k06_helper() {}\n#[tokio::test(flavor = \"x\")]\n\
                  #[ignore]\nasync fn rule_a01_zone() {}\n#[test]\nfn other() {}\n";
    assert_eq!(test_names(source), ["rule_k04_k05_each", "rule_a01_zone"]);
    assert_eq!(rules_in("rule_k04_k05_each_of_k06"), ["K04", "K05"]);
    assert_eq!(by_value(&["a", "b", "c"], &["yes", "no", "no"]), "no; yes in a");
}
