//! Reads Rust source files for the paths in them: in `use` lines, and in code (`crate::store::open(…)`). Comments and what is
//! compiled for unit tests alone is passed over.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// Names from a crate's root, the crate's name first: of a module or of an item.
pub(crate) type Name = Vec<String>;

/// A path as it is written, in the module where it stands.
pub(crate) struct Mention {
    pub(crate) module: Name,
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
    /// For one in a `use` line: the name that the module has for it.
    pub(crate) alias: Option<String>,
}

/// A file of a crate.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// Its module, then the ones that are written out in it.
    pub(crate) modules: Vec<Name>,
    pub(crate) mentions: Vec<Mention>,
}

/// Reads the crate's root file and those of its modules. `name` is what other crates call the crate.
pub(crate) fn read_crate(name: &str, root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let folder = root.parent().expect("a file has a folder");
    read_module(vec![name.to_owned()], root.to_owned(), folder, &mut sources);
    sources
}

fn read_module(module: Name, path: PathBuf, folder: &Path, sources: &mut Vec<Source>) {
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tokens: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reading = Reading::default();
    reading.module(&module, tokens);
    sources.push(Source {
        path,
        modules: reading.modules,
        mentions: reading.mentions,
    });
    for child in reading.children {
        let name = child.last().expect("a child has a name");
        let inner = child[module.len()..child.len() - 1]
            .iter()
            .fold(folder.to_owned(), |at, name| at.join(name));
        let (flat, nested) = (inner.join(format!("{name}.rs")), inner.join(name));
        let file = if flat.exists() {
            flat
        } else {
            nested.join("mod.rs")
        };
        read_module(child, file, &nested, sources);
    }
}

#[derive(Default)]
struct Reading {
    modules: Vec<Name>,
    /// Modules with a file of their own.
    children: Vec<Name>,
    mentions: Vec<Mention>,
}

impl Reading {
    fn module(&mut self, module: &Name, tokens: TokenStream) {
        self.modules.push(module.clone());
        self.tokens(module, tokens);
    }

    fn tokens(&mut self, module: &Name, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += if is_test_attribute(rest) {
                2 + length_of_item(&rest[2..])
            } else if is_word(rest.first(), "pub") && is_group(rest.get(1), Delimiter::Parenthesis) {
                2
            } else if is_word(rest.first(), "use") {
                let length = 1 + rest[1..]
                    .iter()
                    .take_while(|token| !is_mark(Some(token), ';'))
                    .count();
                self.uses(module, &[], &rest[1..length]);
                length
            } else if let (true, Some(TokenTree::Ident(child))) = (is_word(rest.first(), "mod"), rest.get(1))
            {
                let child: Name = module.iter().cloned().chain([child.to_string()]).collect();
                match rest.get(2) {
                    Some(TokenTree::Group(body)) => self.module(&child, body.stream()),
                    _ => self.children.push(child),
                }
                3
            } else if let Some(TokenTree::Group(group)) = rest.first() {
                self.tokens(module, group.stream());
                1
            } else {
                self.path(module, rest)
            };
        }
    }

    /// What a `use` line, or a branch of one, names. `prefix` is what stands before the branch.
    fn uses(&mut self, module: &Name, prefix: &[String], tokens: &[TokenTree]) {
        let branches = tokens.split(|token| is_mark(Some(token), ','));
        for branch in branches.filter(|branch| !branch.is_empty()) {
            let (names, length) = leading_path(branch);
            let mut path: Vec<String> = prefix.iter().cloned().chain(names).collect();
            let line = branch[0].span().start().line;
            match branch.get(length) {
                Some(TokenTree::Group(group)) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.uses(module, &path, &inner);
                    continue;
                }
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                    self.mentions.push(Mention {
                        module: module.clone(),
                        line,
                        path,
                        alias: None,
                    });
                    continue;
                }
                _ => {}
            }
            if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
                path.pop();
            }
            let renamed = branch.get(length + 1).map(ToString::to_string);
            let alias = renamed.or_else(|| path.last().cloned());
            self.mentions.push(Mention {
                module: module.clone(),
                line,
                path,
                alias,
            });
        }
    }

    /// A path in code, if `tokens` begin with one. Returns how many tokens are done with.
    fn path(&mut self, module: &Name, tokens: &[TokenTree]) -> usize {
        let (path, length) = leading_path(tokens);
        if path.len() > 1 {
            let line = tokens[0].span().start().line;
            self.mentions.push(Mention {
                module: module.clone(),
                line,
                path,
                alias: None,
            });
        }
        length.max(1)
    }
}

/// `a::b::c` at the start of `tokens`, and how many tokens it takes, with a last `::` before something else.
fn leading_path(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut at = if is_colons(tokens) { 2 } else { 0 };
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        path.push(name.to_string());
        at += 1;
        if !is_colons(&tokens[at..]) {
            break;
        }
        at += 2;
    }
    (path, at)
}

/// How many tokens the item or the arm takes that `tokens` begin with.
fn length_of_item(tokens: &[TokenTree]) -> usize {
    let is_item = |word: &str| {
        matches!(
            word,
            "pub" | "fn" | "impl" | "struct" | "enum" | "mod" | "trait" | "unsafe"
        )
    };
    let first = tokens.iter().find_map(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    });
    let is_use = tokens.iter().take(3).any(|token| is_word(Some(token), "use"));
    let is_item = first.is_some_and(|word| is_item(&word));
    let ends = |token: &TokenTree| {
        is_mark(Some(token), ';')
            || (!is_use && is_group(Some(token), Delimiter::Brace))
            || (!is_use && !is_item && is_mark(Some(token), ','))
    };
    tokens.iter().position(ends).map_or(tokens.len(), |last| last + 1)
}

/// Whether an attribute begins here that leaves what follows to unit tests: `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    let Some(TokenTree::Group(attribute)) = tokens.get(1) else {
        return false;
    };
    let words: String = attribute
        .stream()
        .to_string()
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .collect();
    is_mark(tokens.first(), '#')
        && (words == "cfg(test)" || words.starts_with("cfg(all(test,") || words == "test")
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    let joint = matches!(tokens.first(), Some(TokenTree::Punct(punct)) if punct.spacing() == Spacing::Joint);
    joint && is_mark(tokens.first(), ':') && is_mark(tokens.get(1), ':')
}
