//! Why a command was not done, in the form in which the user sees it.

use std::error::Error;
use std::io;
use std::path::Path;

use sealblk_api::ApiError;
use sealblk_api::client::ClientError;

use crate::printable::printable;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The daemon refused, or failed.
    #[error("{}", .0.message)]
    Refused(ApiError),
    /// The daemon was not reached or not understood.
    #[error(transparent)]
    Client(ClientError),
    /// Standard input or output cannot be used as a file.
    #[error("standard {0} cannot be used")]
    Standard(&'static str, #[source] io::Error),
    /// The answer cannot be written.
    #[error("the answer cannot be written to standard output")]
    Output(#[source] io::Error),
    /// A file that is to be written is there already.
    #[error("{0} exists already: name another file, or remove it first")]
    FileExists(String),
    /// A file cannot be written or read.
    #[error("{path} cannot be written or read")]
    File {
        /// Its path.
        path: String,
        /// The kernel's.
        #[source]
        source: io::Error,
    },
    /// The file is not what the command needs.
    #[error("{0}")]
    WrongFile(String),
    /// The question was not answered with yes.
    #[error("it was not confirmed: nothing is changed")]
    NotConfirmed,
    /// The daemon, of this version, cannot keep a deleted disk.
    #[error(
        "sealblk-kms {0} has no bin, and nothing was deleted: start a later version, or delete the disk for ever with --now"
    )]
    NoBin(String),
    /// The disk is not attached to the instance.
    #[error("disk {0} is not attached to {1}")]
    NotAttached(String, String),
    /// The answer is no JSON.
    #[error("the answer cannot be put into JSON")]
    Json(#[from] serde_json::Error),
    /// No event loop.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(error) => Failure::Refused(error),
            error => Failure::Client(error),
        }
    }
}

impl Failure {
    /// Of a file.
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Failure::File {
            path: path.display().to_string(),
            source,
        }
    }

    /// The object that `-o json` prints: the daemon's own, or one of the same form.
    pub(crate) fn to_api_error(&self) -> ApiError {
        let code = match self {
            Failure::Refused(error) => return error.clone(),
            Failure::Client(error) => error.code(),
            Failure::Output(_) | Failure::Json(_) => "OutputFailed",
            Failure::Standard(..) => "FileFailed",
            Failure::FileExists(_) => "FileExists",
            Failure::File { .. } => "FileFailed",
            Failure::WrongFile(_) => "WrongFile",
            Failure::NoBin(_) => "NotSupported",
            Failure::NotAttached(..) => "NotAttached",
            Failure::NotConfirmed => "NotConfirmed",
            Failure::Runtime(_) => "Internal",
        };
        ApiError {
            code: code.to_owned(),
            rule: None,
            message: with_sources(self),
            request: None,
        }
    }
}

/// `error: CODE (RULE): text`, on one line whatever the text holds.
pub(crate) fn line(error: &ApiError) -> String {
    let rule = error.rule.as_ref().map(|rule| format!(" ({rule})"));
    let text = format!("{}{}: {}", error.code, rule.unwrap_or_default(), error.message);
    format!("error: {}", printable(&text))
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(rule: Option<&str>) -> ApiError {
        ApiError {
            code: "LocalStorage".to_owned(),
            rule: rule.map(str::to_owned),
            message: "use another instance".to_owned(),
            request: None,
        }
    }

    #[test]
    fn errors_have_the_documented_form() {
        assert_eq!(
            line(&refusal(Some("A03"))),
            "error: LocalStorage (A03): use another instance"
        );
        assert_eq!(line(&refusal(None)), "error: LocalStorage: use another instance");
    }

    #[test]
    fn a_text_cannot_forge_a_second_line_or_control_the_terminal() {
        let mut error = refusal(None);
        error.message = "no disk\nerror: \u{1b}[2J".to_owned();
        assert_eq!(line(&error), "error: LocalStorage: no disk\\nerror: \\u{1b}[2J");
    }

    #[test]
    fn the_daemons_error_object_is_handed_on_unchanged() {
        let error = refusal(Some("A03"));
        assert_eq!(Failure::Refused(error.clone()).to_api_error(), error);
    }

    #[test]
    fn causes_are_named_once() {
        let full = Failure::Output(io::Error::other("no space"));
        let error = full.to_api_error();
        assert_eq!(error.code, "OutputFailed");
        assert_eq!(
            error.message,
            "the answer cannot be written to standard output: no space"
        );
    }
}
