//! Answers as text that fits the terminal, or as one JSON object.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::printable::printable;
use crate::values::Format;

/// Columns are this far apart.
const GAP: usize = 2;

/// A column that may be shortened keeps at least this many characters.
const NARROWEST: usize = 8;

/// What a command has to say.
#[derive(Debug)]
pub(crate) struct Answer {
    object: Option<serde_json::Value>,
    blocks: Vec<Block>,
    /// The command's exit status.
    pub(crate) status: u8,
    /// Standard output is for something else.
    aside: bool,
}

/// A piece of text output.
#[derive(Debug)]
pub(crate) enum Block {
    /// A sentence, or a line to paste; never shortened.
    Line(String),
    /// Names and values.
    Fields(Vec<(&'static str, String)>),
    /// A table.
    Table(Table),
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<String>,
    /// Which columns may be shortened.
    flexible: Vec<bool>,
    rows: Vec<Vec<String>>,
}

/// A column of a table of these objects.
pub(crate) struct Column<T> {
    heading: &'static str,
    /// Its cells may be shortened to fit the terminal. Ids never are, because they are copied.
    flexible: bool,
    /// What an object has in it.
    pub(crate) cell: fn(&T) -> String,
}

/// A column that is never shortened.
pub(crate) const fn fixed<T>(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column {
        heading,
        flexible: false,
        cell,
    }
}

/// A column that may be shortened.
pub(crate) const fn flexible<T>(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column {
        heading,
        flexible: true,
        cell,
    }
}

impl Answer {
    /// `object` is what `-o json` prints, `blocks` are what people read.
    pub(crate) fn new(object: &impl Serialize, blocks: Vec<Block>) -> Result<Self, Failure> {
        Ok(Answer {
            object: Some(serde_json::to_value(object)?),
            blocks,
            status: 0,
            aside: false,
        })
    }

    /// Of a command that has printed what there was to say.
    pub(crate) fn said() -> Self {
        Answer {
            object: None,
            blocks: Vec::new(),
            status: 0,
            aside: false,
        }
    }

    /// To be written to standard error, since standard output has been written to.
    pub(crate) fn aside(self) -> Self {
        Answer { aside: true, ..self }
    }

    /// Writes it to standard output. False: the reader has seen enough, as `head` does, and closed it.
    pub(crate) fn print(&self, format: Format) -> Result<bool, Failure> {
        let text = match format {
            Format::Json => self.json()?,
            Format::Text => self.text(terminal_width()),
        };
        match self.aside {
            // There is nowhere left to say that standard error is closed.
            true => Ok(io::stderr().write_all(text.as_bytes()).is_ok()),
            false => write(&text),
        }
    }

    /// As [`Answer::print`], in the place of what was printed before: on a terminal over it, elsewhere below it.
    pub(crate) fn print_again(&self, format: Format) -> Result<bool, Failure> {
        match (format, terminal_size()) {
            (Format::Json, _) => write(&self.json()?),
            (Format::Text, None) => write(&(self.text(None) + "\n")),
            (Format::Text, Some((width, height))) => write(&drawn(&self.text(Some(width)), height)),
        }
    }

    /// One object on one line.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        match &self.object {
            Some(object) => Ok(serde_json::to_string(object)? + "\n"),
            None => Ok(String::new()),
        }
    }

    /// Text, at most `width` wide where that is possible; `None` is without limit.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            match block {
                Block::Line(line) => text.push_str(&(printable(line) + "\n")),
                Block::Fields(fields) => push_fields(&mut text, fields),
                Block::Table(table) => table.push(&mut text, width),
            }
        }
        text
    }
}

/// Writes text to standard output. False: nobody reads it any more.
pub(crate) fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Failure::Output),
    }
}

/// The text from the screen's upper left corner on, with nothing beside or below it: ECMA-48's CUP, EL and ED. What the
/// screen has no line for is left out, since the screen would move.
fn drawn(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().take(height.saturating_sub(1)).collect();
    format!("\u{1b}[H{}\u{1b}[K\n\u{1b}[J", lines.join("\u{1b}[K\n"))
}

impl Block {
    /// A table with a row for each object.
    pub(crate) fn table<T>(objects: &[T], columns: &[Column<T>]) -> Self {
        let row = |object| {
            columns
                .iter()
                .map(move |column| printable(&(column.cell)(object)))
        };
        Block::Table(Table {
            headings: columns.iter().map(|column| column.heading.to_owned()).collect(),
            flexible: columns.iter().map(|column| column.flexible).collect(),
            rows: objects.iter().map(|object| row(object).collect()).collect(),
        })
    }
}

impl Table {
    fn push(&self, text: &mut String, width: Option<usize>) {
        let widths = self.widths(width);
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{:<width$}{:GAP$}", shortened(cell, *width), ""));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let widest = |(index, heading): (usize, &String)| {
            let cells = self.rows.iter().map(|row| &row[index]).chain([heading]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = self.headings.iter().enumerate().map(widest).collect();
        let limit = limit.unwrap_or(usize::MAX);
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let shrinkable = (0..widths.len()).filter(|i| self.flexible[*i] && widths[*i] > NARROWEST);
            match shrinkable.max_by_key(|i| widths[*i]) {
                Some(widest) => widths[widest] -= 1,
                None => break,
            }
        }
        widths
    }
}

fn push_fields(text: &mut String, fields: &[(&'static str, String)]) {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    for (name, value) in fields {
        let line = format!("{:<width$} {}", format!("{name}:"), printable(value));
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn shortened(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width - 1).chain(['…']).collect()
}

/// `yes` or `no`.
pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// `name (id)`; the id alone of a daemon of an earlier version.
pub(crate) fn named(name: &str, id: &str) -> String {
    match name {
        "" => id.to_owned(),
        name => format!("{name} ({id})"),
    }
}

/// The name, or the id of a daemon of an earlier version.
pub(crate) fn name_or<'a>(name: &'a str, id: &'a str) -> &'a str {
    if name.is_empty() { id } else { name }
}

/// The value, or `-` for none.
pub(crate) fn or_dash<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), T::to_string)
}

/// Columns of the terminal that standard output is, if it is one.
fn terminal_width() -> Option<usize> {
    terminal_size().map(|(width, _)| width)
}

/// Columns and lines of the terminal that standard output is, if it is one.
fn terminal_size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(blocks: Vec<Block>) -> Answer {
        Answer::new(&json!({"id": "a\nb"}), blocks).unwrap()
    }

    fn table(name: &str) -> Answer {
        let columns = [
            fixed("ID", |_| "disk-0123456789abcdef".to_owned()),
            flexible("NAME", String::clone),
            fixed("SIZE", |_| "1 GiB".to_owned()),
        ];
        answer(vec![Block::table(&[name.to_owned()], &columns)])
    }

    #[test]
    fn tables_are_aligned_and_lines_end_without_blanks() {
        assert_eq!(
            table("data").text(None),
            "ID                     NAME  SIZE\ndisk-0123456789abcdef  data  1 GiB\n"
        );
    }

    #[test]
    fn only_flexible_columns_are_shortened_to_fit() {
        let name = "n".repeat(64);
        let text = table(&name).text(Some(50));
        let row = text.lines().nth(1).unwrap();
        assert_eq!(row.chars().count(), 50, "{row}");
        assert!(
            row.starts_with("disk-0123456789abcdef  nnn") && row.ends_with("n…  1 GiB"),
            "{row}"
        );
        assert!(table(&name).text(None).contains(&name));
        let narrow = table(&name).text(Some(10));
        assert!(
            narrow.contains("disk-0123456789abcdef  nnnnnnn…  1 GiB"),
            "{narrow}"
        );
    }

    #[test]
    fn an_empty_table_shows_its_headings() {
        let columns = [fixed("ID", String::clone), flexible("NAME", String::clone)];
        let empty = answer(vec![Block::table(&[], &columns)]);
        assert_eq!(empty.text(Some(80)), "ID  NAME\n");
    }

    #[test]
    fn fields_line_up() {
        let fields = vec![("id", "disk-1".to_owned()), ("state", String::new())];
        assert_eq!(
            answer(vec![Block::Fields(fields)]).text(None),
            "id:    disk-1\nstate:\n"
        );
    }

    #[test]
    fn a_screen_is_drawn_over_and_never_moves() {
        assert_eq!(drawn("a\nb\n", 24), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(drawn("a\nb\nc\n", 3), drawn("a\nb\n", 24));
    }

    #[test]
    fn control_characters_are_escaped_and_json_is_one_line() {
        let line = answer(vec![Block::Line("a\u{1b}[31m\tb\u{7f}é".to_owned())]);
        assert_eq!(line.text(None), "a\\u{1b}[31m\\tb\\u{7f}é\n");
        assert_eq!(line.json().unwrap(), "{\"id\":\"a\\nb\"}\n");
    }
}
