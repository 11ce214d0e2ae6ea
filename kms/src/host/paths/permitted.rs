//! Which paths the accounts may name, as the accounts file says.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::limits;

/// The beginning of paths that an account may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(PathBuf);

impl Prefix {
    /// As it stands in the accounts file; none if it cannot be the beginning of a canonical path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let path = Path::new(text);
        // Components leave a single dot out.
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
            && !text.split('/').any(|part| part == ".");
        (path.is_absolute() && plain && text.len() <= limits::PATH_BYTES && !text.contains('\0'))
            .then(|| Prefix(path.to_owned()))
    }

    /// As it was written.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the path, which has no dots, is this one, lies in the directory that this is, or else begins so with its last
    /// part.
    pub(crate) fn permits(&self, path: &Path) -> bool {
        if path.starts_with(&self.0) {
            return true;
        }
        let (Some(begin), Some(name)) = (self.0.file_name(), path.file_name()) else {
            return false;
        };
        path.parent() == self.0.parent()
            && name.as_bytes().starts_with(begin.as_bytes())
            && !self.0.as_os_str().as_bytes().ends_with(b"/")
            && !self.0.is_dir()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// The prefixes of each account.
#[derive(Debug, Default)]
pub(crate) struct Permitted(BTreeMap<String, Vec<Prefix>>);

impl Permitted {
    pub(crate) fn insert(&mut self, account: String, prefixes: Vec<Prefix>) {
        self.0.insert(account, prefixes);
    }

    pub(crate) fn of(&self, account: &str) -> &[Prefix] {
        self.0.get(account).map_or(&[], Vec::as_slice)
    }

    /// The prefixes of all accounts.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &Prefix> {
        self.0.values().flatten()
    }

    /// The accounts with their prefixes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Vec<Prefix>)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_all_in_it_and_anything_else_for_names_that_begin_so() {
        let directory = tempfile::tempdir().unwrap();
        let text = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(text("acme")).unwrap();
        let permits = |prefix: &str, path: &str| {
            Prefix::parse(&text(prefix))
                .unwrap()
                .permits(Path::new(&text(path)))
        };
        assert!(permits("acme", "acme/file"));
        assert!(permits("acme", "acme/below/file"));
        assert!(permits("acme", "acme"));
        assert!(!permits("acme", "acme-evil"), "whole components");
        assert!(!permits("acme/", "acme-evil"));
        assert!(!permits("acme", "acme-evil/file"));
        assert!(!permits("acme/below", "acme/file"));
        assert!(permits("mapper-", "mapper-data"));
        assert!(!permits("mapper-", "mapper-data/file"), "the last part");
        assert!(!permits("mapper-", "mapper"));
        assert!(!permits("mapper-/", "mapper-data"), "said to be a directory");
        assert!(Prefix::parse("/").unwrap().permits(Path::new("/any/file")));
    }

    #[test]
    fn a_prefix_is_absolute_and_plain() {
        for bad in ["", "srv", "./srv", "/srv/../etc", "/srv/.", "/srv/./x", "/srv/\0"] {
            assert_eq!(Prefix::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Prefix::parse("/srv/acme").unwrap().to_string(), "/srv/acme");
    }
}
