//! What the documents point at is there: files by links, and the function, type or file that a link is named after.

use std::fs;
use std::path::{Path, PathBuf};

use crate::top;

/// `[name](target)` in a document, without those that lead elsewhere.
fn links(document: &str) -> impl Iterator<Item = (&str, &str)> {
    document
        .split("](")
        .zip(document.split("](").skip(1))
        .filter_map(|(before, after)| {
            let name = before.rsplit('[').next()?;
            let target = after.split(')').next()?.split('#').next()?;
            (!target.is_empty() && !target.contains("://")).then_some((name, target))
        })
}

/// What a link is named after: `f` for `` `Type::f` ``, nothing for words.
fn item(name: &str) -> Option<&str> {
    name.strip_prefix('`')?.strip_suffix('`')?.rsplit("::").next()
}

/// Paths from the repository's top that a document has between backquotes.
fn paths(document: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: [&str; 6] = ["src/", "kms/", "tests/", "docs/", "scripts/", "fuzz/"];
    let is_plain = |word: &str| {
        word.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./".contains(c))
    };
    let quoted = document.split('`').skip(1).step_by(2);
    quoted.filter(move |word| FOLDERS.iter().any(|folder| word.starts_with(folder)) && is_plain(word))
}

fn missing(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).expect("a document");
    let folder = document.parent().expect("a file has a folder");
    let is_missing = |(name, target): &(&str, &str)| {
        let path = folder.join(target);
        match item(name) {
            Some(item) if target.ends_with(".rs") && !target.ends_with(item) => {
                !fs::read_to_string(path).is_ok_and(|source| source.contains(item))
            }
            _ => !path.exists(),
        }
    };
    let links = links(&text).filter(is_missing);
    let links = links.map(|(name, target)| format!("{}: [{name}]({target})", document.display()));
    let paths = paths(&text).filter(|path| !top().join(path).exists());
    let paths = paths.map(|path| format!("{}: `{path}`", document.display()));
    links.chain(paths).collect()
}

#[test]
fn what_the_documents_point_at_is_there() {
    let top = top();
    let mut documents: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md"].map(|name| top.join(name)).into();
    for entry in fs::read_dir(top.join("docs")).expect("docs") {
        documents.push(entry.expect("an entry").path());
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let missing: Vec<_> = documents.iter().flat_map(|path| missing(path)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_link_is_read_with_its_name() {
    let text = "as [`Type::f`](a/b.rs#L1) and [words](c.md), not [here](#below) nor [there](https://x/y)";
    let found: Vec<_> = links(text).collect();
    assert_eq!(found, [("`Type::f`", "a/b.rs"), ("words", "c.md")]);
    assert_eq!((item("`Type::f`"), item("words")), (Some("f"), None));
    let text = "in `src/a/b.rs`, `src/{c,d}.rs`, `kms/src/NOUN/x.rs`, `a/b` and `docs/`";
    assert_eq!(paths(text).collect::<Vec<_>>(), ["src/a/b.rs", "docs/"]);
}
