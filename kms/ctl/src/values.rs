//! What arguments of many commands are.

use clap::ValueEnum;

use crate::standard;

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object on one line, with stable field names.
    Json,
}

/// Parses an id or a name, as a segment of a route: anything but nothing. The daemon judges the rest.
pub(crate) fn object(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("an id or a name is needed"),
        text => Ok(text.to_owned()),
    }
}

/// A path, or `-` for standard input or output.
pub(crate) fn file(text: &str) -> Result<String, String> {
    match text {
        standard::STANDARD => Ok(text.to_owned()),
        _ => path(text),
    }
}

/// Parses a path that the daemon will open, whose working directory is another: makes it absolute. It need not exist.
pub(crate) fn path(text: &str) -> Result<String, String> {
    let path = std::path::absolute(text).map_err(|error| error.to_string())?;
    let text = path.into_os_string().into_string();
    text.map_err(|_| "the path of the working directory is no UTF-8".to_owned())
}
