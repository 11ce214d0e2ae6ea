//! No file uses another that uses it, by whatever way, and no arrow between rooms goes up in the picture of docs/architecture.md.

mod documents;
mod graph;
mod source;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use graph::{Arrow, arrows, circles};
use source::Source;

/// A crate.
struct Crate {
    /// As `use` lines have it.
    name: &'static str,
    folder: &'static str,
    /// Its root file, in the folder.
    root: &'static str,
    /// What the picture has before the paths of its files.
    prefix: &'static str,
}

const fn of(name: &'static str, folder: &'static str, root: &'static str, prefix: &'static str) -> Crate {
    Crate {
        name,
        folder,
        root,
        prefix,
    }
}

/// Each picture: its heading in the document, and the crates whose files it arranges.
const HOUSES: &[(&str, &[Crate])] = &[
    (
        "sealblk's rooms",
        &[
            of("sealblk", "src", "lib.rs", ""),
            of("sealblk-program", "src", "bin/sealblk/main.rs", ""),
        ],
    ),
    (
        "The control plane's rooms",
        &[
            of("sealblk_kms", "kms/src", "lib.rs", ""),
            of("sealblk-kms-program", "kms/src", "main.rs", ""),
            of("sealctl", "kms/ctl/src", "main.rs", "sealctl"),
            of("sealblk_api", "kms/api/src", "lib.rs", "sealblk-api"),
            of("sealblk_proto", "kms/proto/src", "lib.rs", "sealblk-proto"),
        ],
    ),
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository")
}

#[test]
fn no_file_is_on_a_circle() {
    let mut report = String::new();
    for (_, crates) in HOUSES {
        let arrows = arrows_of(crates);
        for circle in circles(&arrows) {
            writeln!(report, "\n{} files on a circle:", circle.len()).unwrap();
            for arrow in arrows
                .iter()
                .filter(|arrow| circle.contains(&*arrow.from) && circle.contains(&*arrow.to))
            {
                writeln!(
                    report,
                    "  {}:{} uses {}",
                    arrow.from.display(),
                    arrow.line,
                    arrow.to.display()
                )
                .unwrap();
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn no_arrow_between_rooms_goes_up() {
    let mut report = String::new();
    for (heading, crates) in HOUSES {
        let floors = floors(heading);
        let arrows = arrows_of(crates);
        for arrow in &arrows {
            if goes_up(arrow, &floors) {
                writeln!(
                    report,
                    "{}:{} uses {}",
                    arrow.from.display(),
                    arrow.line,
                    arrow.to.display()
                )
                .unwrap();
            }
        }
    }
    assert!(
        report.is_empty(),
        "arrows up or to a room on the same floor:\n{report}"
    );
}

/// What is asked of the catalogue stands beside its tables, where the plans of all statements are tested.
#[test]
fn the_command_links_neither_database_nor_server() {
    let tree = [
        "tree",
        "--package",
        "sealctl",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .current_dir(top())
        .args(tree)
        .args(["--locked", "--offline"])
        .output();
    let output = output.expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("names");
    let crates: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"sealblk-api"));
    for engine in ["sealblk-kms", "sqlx", "axum", "aws-lc-rs", "argon2"] {
        assert!(!crates.contains(&engine), "{engine}");
    }
}

#[test]
fn sql_stands_in_the_catalogue_alone() {
    let catalogue = top().join("kms/src/catalogue");
    let found: Vec<_> = sources_of_kms()
        .into_iter()
        .filter(|(file, text)| {
            let names = ["sqlx::query", "query_as", "query_scalar", "raw_sql"];
            !file.starts_with(&catalogue) && names.iter().any(|name| text.contains(name))
        })
        .map(|(file, _)| file)
        .collect();
    assert!(found.is_empty(), "SQL in {found:#?}");
}

/// What a column can hold is an enumeration, of which the compiler finds a value that was forgotten or is misspelt.
#[test]
fn no_state_or_kind_is_compared_with_a_text() {
    const FIELDS: [&str; 8] = [
        "state", "phase", "store", "kind", "role", "origin", "on_full", "format",
    ];
    let mut found = Vec::new();
    for (file, text) in sources_of_kms() {
        for (line, text) in text.lines().enumerate() {
            let compared = FIELDS.iter().any(|field| {
                let compares = |with: &str| text.contains(&format!(".{field}{with} \""));
                compares(" ==") || compares(" !=") || text.contains(&format!(".{field}.as_str() {{"))
            });
            if compared {
                found.push(format!("{}:{}", file.display(), line + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// All files of the key manager, with their text.
fn sources_of_kms() -> Vec<(PathBuf, String)> {
    let mut files = files_below(&top().join("kms/src"));
    files.retain(|file| file.extension().is_some_and(|name| name == "rs"));
    assert!(files.len() > 100);
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        (file, text)
    };
    files.into_iter().map(read).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files_below(&path),
            false => vec![path],
        })
        .collect()
}

#[test]
fn each_room_of_the_pictures_has_a_file() {
    for (heading, crates) in HOUSES {
        let floors = floors(heading);
        let used: BTreeSet<_> = sources_of(crates)
            .iter()
            .map(|source| room_of(&source.path, &floors))
            .collect();
        let rooms = floors
            .iter()
            .enumerate()
            .flat_map(|(floor, rooms)| (0..rooms.len()).map(move |at| (floor, at)));
        let empty: Vec<_> = rooms
            .filter(|room| !used.contains(room))
            .map(|(floor, at)| &floors[floor][at])
            .collect();
        assert!(empty.is_empty(), "{heading}: no file in {empty:?}");
    }
}

/// What a module hands on counts as what it is, in whatever way it is named; comments and tests do not count.
#[test]
fn every_way_to_name_an_item_is_an_arrow_to_its_file() {
    let files = [
        (
            "lib.rs",
            "//! [`a::A`]\nmod a; mod b; mod c; mod d; mod e; mod f; mod g;",
        ),
        ("a.rs", "pub struct A; pub mod inner { pub struct I; }"),
        ("b/mod.rs", "mod b1; pub use b1::{B as Renamed, self};"),
        ("b/b1.rs", "use super::super::a::A; pub struct B(A);"),
        ("c.rs", "fn c() { let _ = vec![crate::b::Renamed::new(), 1]; }"),
        (
            "d.rs",
            "use crate::a; fn d(x: u8) -> a::A { std::mem::drop(x); a::A }",
        ),
        (
            "e.rs",
            "use crate::{a::inner::{I}, b::b1 as other}; pub(in crate::g) struct E; fn e() -> other::B {}",
        ),
        (
            "f.rs",
            "// crate::a::A\n#[cfg(test)] mod tests { use crate::a::A; }\n#[cfg(test)] use crate::b::Renamed;\nfn f() {}",
        ),
        (
            "g.rs",
            "#[derive(X(crate::e::E))] pub struct G<T>(T) where T: crate::d::D;",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("b")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let read = || arrows(&source::read_crate("example", &folder.path().join("lib.rs")));
    let name = |path: &Path| {
        path.strip_prefix(folder.path())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let found: Vec<_> = read()
        .iter()
        .map(|arrow| [&arrow.from, &arrow.to].map(|path| name(path)).join(" → "))
        .collect();
    let expected = [
        "b/mod.rs → b/b1.rs",
        "b/b1.rs → a.rs",
        "c.rs → b/b1.rs",
        "d.rs → a.rs",
        "e.rs → a.rs",
        "e.rs → b/b1.rs",
        "g.rs → e.rs",
        "g.rs → d.rs",
    ];
    assert_eq!(found, expected);
    assert!(circles(&read()).is_empty());
    std::fs::write(folder.path().join("a.rs"), "use crate::g::G; pub struct A;").unwrap();
    let arrows = read();
    let found: Vec<Vec<_>> = circles(&arrows)
        .iter()
        .map(|circle| circle.iter().map(|path| name(path)).collect())
        .collect();
    assert_eq!(found, [["a.rs", "b/b1.rs", "d.rs", "e.rs", "g.rs"]]);
}

/// The picture: floors from the top, each of them rooms side by side that do not use each other. A room is a folder or a file
/// without its suffix, from the crate's folder.
fn floors(heading: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(top().join("docs/architecture.md")).expect("docs/architecture.md");
    let (_, section) = text
        .split_once(&format!("\n### {heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let picture = section
        .lines()
        .skip_while(|line| !line.starts_with("    "))
        .take_while(|line| line.starts_with("    "));
    picture
        .map(|line| {
            line.trim()
                .split("  ")
                .next()
                .unwrap_or_default()
                .split(", ")
                .map(str::to_owned)
                .collect()
        })
        .collect()
}

/// The floor and the place on it.
fn room_of(file: &Path, floors: &[Vec<String>]) -> (usize, usize) {
    let module = file.with_extension("");
    let rooms = floors.iter().enumerate().flat_map(|(floor, rooms)| {
        rooms
            .iter()
            .enumerate()
            .map(move |(at, room)| (room, (floor, at)))
    });
    rooms
        .filter(|(room, _)| module.starts_with(room))
        .max_by_key(|(room, _)| room.len())
        .unwrap_or_else(|| panic!("{}: in no room of docs/architecture.md", file.display()))
        .1
}

fn goes_up(arrow: &Arrow, floors: &[Vec<String>]) -> bool {
    let (from, to) = (room_of(&arrow.from, floors), room_of(&arrow.to, floors));
    from != to && from.0 >= to.0
}

fn arrows_of(crates: &[Crate]) -> Vec<Arrow> {
    arrows(&sources_of(crates))
}

fn sources_of(crates: &[Crate]) -> Vec<Source> {
    let mut sources = Vec::new();
    for one in crates {
        let folder = top().join(one.folder);
        for mut source in source::read_crate(one.name, &folder.join(one.root)) {
            let path = source.path.strip_prefix(&folder);
            source.path = Path::new(one.prefix).join(path.expect("in its crate's folder"));
            sources.push(source);
        }
    }
    sources
}
