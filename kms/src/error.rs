//! What an API call answers when it does not do what was asked.

use std::error::Error as StdError;
use std::fmt;

use crate::request;
use sealblk_api::ApiError;
pub(crate) use sealblk_api::Code;
use sealblk_proto::causes::with_causes;

/// Result of an operation.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A refusal or failure.
#[derive(Debug)]
pub(crate) struct Error {
    code: Code,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The key whose use raises an alarm.
    alarm: Option<String>,
}

impl Error {
    /// A refusal, with a sentence that says what to do instead.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            message: message.into(),
            source: None,
            alarm: None,
        }
    }

    /// A failure, with what caused it.
    pub(crate) fn because(
        code: Code,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Error {
            code,
            message: message.into(),
            source: Some(Box::new(source)),
            alarm: None,
        }
    }

    /// A refusal to use a key that is going to be deleted, which its owner should learn (rule K11).
    pub(crate) fn with_alarm(mut self, key: &str) -> Self {
        self.alarm = Some(key.to_owned());
        self
    }

    /// The key whose use raises an alarm.
    pub(crate) fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// The stable code that the API answers with.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The sentence, then each cause.
    pub(crate) fn full_message(&self) -> String {
        with_causes(self)
    }

    /// As the API sends it.
    pub(crate) fn to_api(&self) -> ApiError {
        ApiError {
            code: self.code.name().to_owned(),
            rule: self.code.rule().map(str::to_owned),
            message: self.full_message(),
            request: request::current(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// There is no such object.
pub(crate) fn not_found(kind: &str, wanted: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no {kind} {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_object_has_code_rule_and_causes() {
        let error = Error::because(
            Code::LocalStorage,
            "choose another instance",
            std::io::Error::other("because of this"),
        );
        let api = error.to_api();
        assert_eq!(
            (api.code.as_str(), api.rule.as_deref()),
            ("LocalStorage", Some("A03"))
        );
        assert_eq!(api.message, "choose another instance: because of this");
        assert_eq!(Code::NotFound.rule(), None);
    }
}
