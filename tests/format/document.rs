//! Reads constants and tables out of `docs/format.md`. Nothing here knows a number of the format.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

/// What the document says.
pub(crate) struct Document {
    constants: HashMap<String, String>,
    fields: HashMap<(String, String), Range<usize>>,
}

/// The document.
pub(crate) fn document() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| Document::parse(include_str!("../../docs/format.md")))
}

/// A number that the document names.
pub(crate) fn number(name: &str) -> u64 {
    let text = document().constant(name);
    text.parse()
        .unwrap_or_else(|_| panic!("{name} = {text} is no number"))
}

/// Bytes that the document names.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let text = document().constant(name);
    let byte = |digits| u8::from_str_radix(digits, 16).unwrap();
    text.split_whitespace().map(byte).collect()
}

/// Where a field lies in a structure.
pub(crate) fn field(structure: &str, name: &str) -> Range<usize> {
    let key = (structure.to_owned(), name.to_owned());
    let range = document().fields.get(&key);
    range
        .unwrap_or_else(|| panic!("the document has no field {name:?} in {structure:?}"))
        .clone()
}

/// Puts a number into a field.
pub(crate) fn put(structure: &mut [u8], kind: &str, name: &str, value: u64) {
    let range = field(kind, name);
    let bytes = value.to_le_bytes();
    let (low, high) = bytes.split_at(range.len());
    assert!(high.iter().all(|byte| *byte == 0), "{value} fits into {name}");
    structure[range].copy_from_slice(low);
}

/// Puts bytes into a field, from its beginning.
pub(crate) fn put_bytes(structure: &mut [u8], kind: &str, name: &str, value: &[u8]) {
    let range = field(kind, name);
    assert!(
        value.len() <= range.len(),
        "{} bytes fit into {name}",
        value.len()
    );
    structure[range.start..range.start + value.len()].copy_from_slice(value);
}

/// The number in a field.
pub(crate) fn get(structure: &[u8], kind: &str, name: &str) -> u64 {
    let mut bytes = [0; 8];
    let range = field(kind, name);
    bytes[..range.len()].copy_from_slice(&structure[range]);
    u64::from_le_bytes(bytes)
}

/// Bytes of a structure: where its last field ends.
pub(crate) fn size(structure: &str) -> usize {
    let fields = document().fields.iter();
    let ends = fields
        .filter(|((kind, _), _)| kind == structure)
        .map(|(_, range)| range.end);
    ends.max()
        .unwrap_or_else(|| panic!("the document has no structure {structure:?}"))
}

impl Document {
    fn parse(text: &str) -> Self {
        let mut document = Document {
            constants: HashMap::new(),
            fields: HashMap::new(),
        };
        let mut heading = String::new();
        let mut is_layout = false;
        for line in text.lines() {
            if let Some((name, value)) = line.strip_prefix("    ").and_then(|line| line.split_once(" = ")) {
                document.constants.insert(name.to_owned(), value.to_owned());
            } else if let Some(title) = line.strip_prefix("### ") {
                title.clone_into(&mut heading);
            } else if line.starts_with("| at | bytes | field |") {
                is_layout = true;
            } else if !line.starts_with('|') {
                is_layout = false;
            } else if is_layout && !line.starts_with("|---") {
                document.add_row(&heading, line);
            }
        }
        document
    }

    fn add_row(&mut self, heading: &str, line: &str) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (at, len): (usize, usize) = (cells[1].parse().unwrap(), cells[2].parse().unwrap());
        let others = self.fields.iter().filter(|((kind, _), _)| kind == heading);
        for ((_, name), other) in others {
            let apart = other.end <= at || at + len <= other.start;
            assert!(apart, "{heading}: {} overlaps {name}", cells[3]);
        }
        let key = (heading.to_owned(), cells[3].to_owned());
        assert!(self.fields.insert(key, at..at + len).is_none(), "{line}");
    }

    fn constant(&self, name: &str) -> &str {
        self.constants
            .get(name)
            .unwrap_or_else(|| panic!("the document has no constant {name}"))
    }
}
