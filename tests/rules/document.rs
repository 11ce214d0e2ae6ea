//! `docs/rules.md`: made of the list of rules, the table of profiles, the refusals in the code and the modules here, and
//! compared with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::list::{HELD_IN, KINDS, NOT_BUILT, RULES};
use crate::scene::PROFILES;

const INTRODUCTION: &str = "\
# Rules

What sealblk promises, numbered so that code, tests and refusals can name a rule: a refused call answers with a stable code,
the number of the rule, and a sentence that says what to do instead, and has changed nothing.

Each rule has a module in `tests/rules/` that shows on the real daemons what it allows and what it refuses. Tests elsewhere that
go deeper begin with the rule's number, too: `cargo nextest list --workspace -E 'test(/rule_(..._)*k01_/)'`. Regions differ by their
policy profile ([rules-profiles.md](rules-profiles.md) says what the words mean): what each profile chooses follows the rules of a
kind.

A test makes this file and fails if it is not up to date: `UPDATE=1 cargo nextest run --workspace --test rules document`.
";

/// Where the KMS's refusals are made.
const SOURCES: &str = "kms/src";

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

/// A row of `docs/rules-profiles.md`: a switch, the rules that it belongs to, and what each profile has for it.
struct Switch {
    name: String,
    rules: Vec<String>,
    values: Vec<String>,
}

fn switches() -> Vec<Switch> {
    let document = fs::read_to_string(root().join("docs/rules-profiles.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with('|'));
    let mut cells = rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    });
    let heading = cells.next().unwrap();
    assert_eq!(heading[2..], PROFILES.map(|profile| format!("`{profile}`")));
    cells
        .skip(1)
        .map(|row| Switch {
            name: row[0].clone(),
            rules: row[1].split(", ").map(str::to_owned).collect(),
            values: row[2..].to_vec(),
        })
        .collect()
}

/// The codes of refusals, each with its rule.
fn codes() -> Vec<(String, String)> {
    let list = fs::read_to_string(root().join("kms/api/src/code.rs")).unwrap();
    let code = |line: &str| {
        let (name, rest) = line.trim().split_once(" = ")?;
        let rule = rest.split('"').nth(1)?;
        Some((name.to_owned(), rule.to_owned()))
    };
    list.lines().filter_map(code).collect()
}

/// The rules whose refusals the source makes. One that is asked for (`==`), or that is what another process has answered (`=>`), is
/// made elsewhere.
fn refused_in(source: &str, codes: &[(String, String)]) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = source.lines().map(str::trim_start);
    let code: String = lines.filter(|line| !line.starts_with("//")).collect();
    let mut rules = BTreeSet::new();
    for (at, _) in code.match_indices("Code::") {
        let name = code[at + "Code::".len()..]
            .split(|letter: char| !letter.is_alphanumeric())
            .next();
        let made = !code[..at].ends_with("== ") && !code[..at].ends_with("=> ");
        let rule = codes.iter().find(|(code, _)| made && Some(&**code) == name);
        rules.extend(rule.map(|(_, rule)| rule.clone()));
    }
    rules
}

/// For each rule the files that check it, those of `rules/` first.
fn checked_in() -> BTreeMap<String, Vec<String>> {
    let (root, codes) = (root(), codes());
    let mut paths = Vec::new();
    rust_files(&root.join(SOURCES), &mut paths);
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for (rule, held) in HELD_IN {
        files.insert(
            (*rule).to_owned(),
            held.iter().map(|file| (*file).to_owned()).collect(),
        );
    }
    for path in paths {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        // Views tell what would be refused, and refuse nothing.
        if file.contains("/views/") || file.contains("tests") {
            continue;
        }
        for rule in refused_in(&fs::read_to_string(&path).unwrap(), &codes) {
            files.entry(rule).or_default().push(file.clone());
        }
    }
    for files in files.values_mut() {
        files.sort_by_key(|file| (!file.contains("/rules/"), file.clone()));
        files.dedup();
    }
    files
}

fn document() -> String {
    let (switches, checked_in) = (switches(), checked_in());
    let mut text = INTRODUCTION.to_owned();
    for (letter, title) in KINDS {
        let _ = writeln!(
            text,
            "\n## {letter}: {title}\n\n| rule | what it says | where it is checked | its test |\n|---|---|---|---|"
        );
        for rule in RULES.iter().filter(|rule| rule.id.starts_with(letter)) {
            let files = checked_in.get(rule.id).map(Vec::as_slice).unwrap_or_default();
            let places: Vec<_> = files.iter().map(|file| link(file)).collect();
            let missing = NOT_BUILT.iter().find(|(id, _)| *id == rule.id);
            let shown = match missing {
                Some((_, what)) => format!("not built yet: {what}"),
                None => link(&rule.module()),
            };
            let (id, sentence, places) = (rule.id, rule.sentence, places.join(", "));
            let _ = writeln!(text, "| **{id}** | {sentence} | {places} | {shown} |");
        }
        let of_kind = |switch: &&Switch| switch.rules.iter().any(|rule| rule.starts_with(letter));
        let rows: Vec<_> = switches.iter().filter(of_kind).collect();
        if rows.is_empty() {
            continue;
        }
        let profiles = PROFILES.map(|profile| format!("`{profile}`")).join(" | ");
        let _ = writeln!(
            text,
            "\n| rule | switch | {profiles} |\n|---|---|---|---|---|---|---|"
        );
        for Switch { name, rules, values } in rows {
            let _ = writeln!(text, "| {} | {name} | {} |", rules.join(", "), values.join(" | "));
        }
    }
    text
}

/// A link to a file, by a name that is short in a table.
fn link(file: &str) -> String {
    let short = file
        .strip_prefix("kms/src/")
        .or(file.strip_prefix("tests/rules/"))
        .unwrap_or(file);
    format!("[{short}](../{file})")
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
        let module = rule.module();
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
    assert!(
        switches()
            .iter()
            .flat_map(|switch| &switch.rules)
            .all(|id| is_rule(id))
    );
    assert!(NOT_BUILT.iter().all(|(id, _)| is_rule(id)));
    assert!(codes().iter().all(|(_, id)| is_rule(id)));
}

#[test]
fn every_rule_that_is_built_is_checked_in_files_that_name_it() {
    let checked_in = checked_in();
    for rule in RULES {
        let known = NOT_BUILT.iter().any(|(id, _)| *id == rule.id);
        assert_ne!(
            known,
            checked_in.contains_key(rule.id),
            "where {} is checked",
            rule.id
        );
    }
    for (id, files) in HELD_IN {
        for file in *files {
            let text =
                fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(id), "{file} does not name {id}");
        }
    }
}

#[test]
fn names_are_read_as_they_are_meant() {
    let source = "#[test]\nfn rule_k04_k05_each() {\n}\nfn rule_k06_helper() {}\n#[tokio::test(flavor = \"x\")]\n\
                  #[ignore]\nasync fn rule_a01_zone() {}\n#[test]\nfn other() {}\n";
    assert_eq!(test_names(source), ["rule_k04_k05_each", "rule_a01_zone"]);
    assert_eq!(rules_in("rule_k04_k05_each_of_k06"), ["K04", "K05"]);
}

#[test]
fn what_is_refused_is_read_from_code_that_makes_a_refusal() {
    let codes = [("Far", "A01"), ("Taken", "D09"), ("Used", "A05")];
    let codes = codes.map(|(code, rule)| (code.to_owned(), rule.to_owned()));
    let source = "/// [`Code::Used`]\nfn f() {\n    Error::new(\n        Code::Far, \"\");\n    error == Code::Taken;\n}\n\
                  #[cfg(test)]\nmod tests { fn f() { new(Code::Used) } }\n";
    assert_eq!(refused_in(source, &codes), ["A01".to_owned()].into());
    assert_eq!(refused_in("new(Code::Farther)", &codes), [].into());
}
