//! What holds, and what does not.

use std::fmt;

/// The parts of the sandbox, in the order in which they were entered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    held: Vec<&'static str>,
    lines: Vec<String>,
    missing: Vec<String>,
}

impl Report {
    /// Notes how a part went.
    pub fn note(&mut self, part: &'static str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.held.push(part);
                self.lines.push(format!("{part}: ok"));
            }
            Err(why) => {
                self.lines.push(format!("{part}: missing: {why}"));
                self.missing.push(format!("{part}: {why}"));
            }
        }
    }

    /// What does not hold: each its name and why, as one clause.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// A line for each part: `name: ok`, or `name: missing: why`.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Says it once.
    pub fn log(&self) {
        match self.missing.is_empty() {
            true => log::debug!("{self}"),
            false => log::warn!("{self}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match self.held.is_empty() {
            true => "nothing".to_owned(),
            false => self.held.join(", "),
        };
        write!(f, "the sandbox has: {held}")?;
        match self.missing.is_empty() {
            true => Ok(()),
            false => write!(f, "; it lacks: {}", self.missing.join("; ")),
        }
    }
}
