//! Who uses whom, by file, and the circles in that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::source::{Mention, Name, Source};

/// A file that another one mentions, and the line where.
pub(crate) struct Arrow {
    pub(crate) from: PathBuf,
    pub(crate) line: usize,
    pub(crate) to: PathBuf,
}

/// The arrows between the files of some crates.
pub(crate) fn arrows(sources: &[Source]) -> Vec<Arrow> {
    let names = Names::of(sources);
    let mut arrows: Vec<Arrow> = Vec::new();
    for source in sources {
        for mention in &source.mentions {
            let Some(to) = names.file_of_mention(mention) else {
                continue;
            };
            let known = arrows
                .iter()
                .any(|arrow| arrow.from == source.path && arrow.to == to);
            if to != source.path && !known {
                arrows.push(Arrow {
                    from: source.path.clone(),
                    line: mention.line,
                    to: to.to_owned(),
                });
            }
        }
    }
    arrows
}

/// What each module's names stand for.
struct Names<'a> {
    files: HashMap<&'a [String], &'a Path>,
    uses: HashMap<(&'a [String], &'a str), &'a Mention>,
}

impl<'a> Names<'a> {
    fn of(sources: &'a [Source]) -> Names<'a> {
        let mut names = Names {
            files: HashMap::new(),
            uses: HashMap::new(),
        };
        for source in sources {
            for module in &source.modules {
                names.files.insert(module, &source.path);
            }
            for mention in &source.mentions {
                if let Some(alias) = &mention.alias {
                    names.uses.insert((&mention.module, alias), mention);
                }
            }
        }
        names
    }

    fn file_of_mention(&self, mention: &Mention) -> Option<&'a Path> {
        self.file_of(&self.absolute(mention)?, 0)
    }

    /// The file where what is named stands: not the one of a module that only hands the name on.
    fn file_of(&self, name: &[String], hops: usize) -> Option<&'a Path> {
        assert!(hops < 20, "{}: names that stand for each other", name.join("::"));
        let mut module = &name[..1];
        for (at, segment) in name.iter().enumerate().skip(1) {
            let child = &name[..=at];
            let handed_on = self.uses.get(&(module, segment.as_str()));
            let is_module = self.files.contains_key(child);
            // An item and a module may have one name.
            if is_module && (at + 1 < name.len() || handed_on.is_none()) {
                module = child;
            } else if let Some(mention) = handed_on {
                let mut stands_for = self.absolute(mention)?;
                stands_for.extend_from_slice(&name[at + 1..]);
                return if stands_for == name {
                    self.files.get(child).or(self.files.get(module)).copied()
                } else {
                    self.file_of(&stands_for, hops + 1)
                };
            } else {
                break;
            }
        }
        self.files.get(module).copied()
    }

    /// The name from its crate's root. None for what is in no crate that is read.
    fn absolute(&self, mention: &Mention) -> Option<Name> {
        let mut module = mention.module.clone();
        let mut rest = mention.path.as_slice();
        match rest.first()?.as_str() {
            "crate" => {
                module.truncate(1);
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let handed_on = self.uses.get(&(module.as_slice(), first));
                let child = [module.as_slice(), &rest[..1]].concat();
                let names_itself =
                    handed_on.is_some_and(|it| std::ptr::eq(*it, mention) || it.path[0] == first);
                if self.files.contains_key(child.as_slice()) {
                } else if self.files.contains_key(&rest[..1]) {
                    module.clear();
                } else if handed_on.is_none() || names_itself {
                    return None;
                }
            }
        }
        module.extend_from_slice(rest);
        Some(module)
    }
}

/// The files that lie on a circle, each time with all that are on circles with them.
pub(crate) fn circles(arrows: &[Arrow]) -> Vec<BTreeSet<&Path>> {
    let mut next: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for arrow in arrows {
        next.entry(&arrow.from).or_default().push(&arrow.to);
    }
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        next.keys().map(|from| (*from, reached(from, &next))).collect();
    let circles: BTreeSet<BTreeSet<&Path>> = reached
        .iter()
        .filter(|(from, to)| to.contains(*from))
        .map(|(from, to)| {
            to.iter()
                .filter(|to| reached.get(*to).is_some_and(|back| back.contains(from)))
                .copied()
                .collect()
        })
        .collect();
    circles.into_iter().collect()
}

fn reached<'a>(from: &Path, next: &BTreeMap<&'a Path, Vec<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Path> = next.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(next.get(file).into_iter().flatten());
        }
    }
    reached
}
