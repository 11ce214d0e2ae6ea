//! What the program says on standard output.

use std::io::Write;

/// Writes a line. Nobody may be listening any more, or the file may be full: that stops no daemon.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
