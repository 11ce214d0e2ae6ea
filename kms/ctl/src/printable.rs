//! Texts of others, for a terminal.

/// `text` with control characters escaped, so that a path or name cannot move the cursor or forge a line.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_debug());
        } else {
            safe.push(c);
        }
    }
    safe
}
