//! What a command has answered.

use std::process::Output;

use serde_json::Value;

/// Exit status and output of a command that has ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Outcome {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// Asserts success and gives back standard output.
    ///
    /// # Panics
    /// If the command did not end with status 0, or had anything to say on standard error.
    pub fn text(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// Asserts success and gives back the one JSON object on standard output.
    ///
    /// # Panics
    /// If the command did not end with status 0, or the output is no JSON object.
    pub fn json(self) -> Value {
        let text = self.text();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value.is_object(), "{value}");
        value
    }

    /// Asserts a refusal in the documented form, and gives back its sentence.
    ///
    /// # Panics
    /// If status, code or rule are others, or there is more output.
    pub fn refusal(self, code: &str, rule: Option<&str>) -> String {
        let rule = rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
        let prefix = format!("error: {code}{rule}: ");
        assert_eq!(
            (self.status, self.stdout.as_str()),
            (Some(1), ""),
            "expected {prefix}: {self:?}"
        );
        // The daemon's log may come before its last word.
        let line = self.stderr.lines().last().unwrap_or_default();
        let sentence = line.strip_prefix(&prefix);
        let sentence = sentence.unwrap_or_else(|| panic!("expected {prefix:?}: {self:?}"));
        assert!(!sentence.is_empty(), "{self:?}");
        sentence.to_owned()
    }

    /// Asserts wrong usage.
    ///
    /// # Panics
    /// If the status is not 2, or nothing explains it.
    pub fn usage_error(self) {
        assert_eq!((self.status, self.stdout.as_str()), (Some(2), ""), "{self:?}");
        assert!(!self.stderr.is_empty());
    }
}
