//! What `--audit-sink` names.

use std::path::PathBuf;

use super::deliver::Deliver;
use super::exec::ToProgram;
use super::file::ToFile;
use super::journald::ToJournal;
use super::sink::Sink;

/// What is said of a sink that is none.
const FORMS: &str = "an audit sink is journald, journald:SOCKET, file:PATH or exec:PROGRAM, with an absolute path, and `,required` \
                     after it if calls are to fail without it";

/// Where journald listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// A sink that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// As it was asked for, without `,required`.
    pub(crate) name: String,
    required: bool,
    to: To,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Journal(PathBuf),
    File(PathBuf),
    Program(PathBuf),
}

impl Choice {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, required) = match text.strip_suffix(",required") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let (kind, path) = name.split_once(':').unwrap_or((name, ""));
        let path = PathBuf::from(match (kind, path) {
            ("journald", "") if name == kind => JOURNAL,
            (_, path) => path,
        });
        let to = match kind {
            _ if !path.is_absolute() => return Err(FORMS),
            "journald" => To::Journal(path),
            "file" => To::File(path),
            "exec" => To::Program(path),
            _ => return Err(FORMS),
        };
        Ok(Choice {
            name: name.to_owned(),
            required,
            to,
        })
    }

    /// The sink, which has all records up to this position.
    ///
    /// # Errors
    /// The operating system's, which gives no thread.
    pub(crate) fn open(self, seq: u64) -> std::io::Result<Sink> {
        let deliver: Box<dyn Deliver> = match self.to {
            To::Journal(socket) => Box::new(ToJournal::new(socket)),
            To::File(path) => Box::new(ToFile::new(path)),
            To::Program(program) => Box::new(ToProgram::new(program, self.required)),
        };
        Sink::start(self.name, self.required, seq, deliver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_one_of_three_kinds_and_required_or_not() {
        let parse = |text| Choice::parse(text).map(|choice| (choice.name, choice.required, choice.to));
        let file = || To::File("/var/log/a,b".into());
        assert_eq!(
            parse("file:/var/log/a,b"),
            Ok(("file:/var/log/a,b".into(), false, file()))
        );
        assert_eq!(
            parse("file:/var/log/a,b,required"),
            Ok(("file:/var/log/a,b".into(), true, file()))
        );
        assert_eq!(
            parse("journald,required"),
            Ok(("journald".into(), true, To::Journal(JOURNAL.into())))
        );
        assert_eq!(
            parse("journald:/run/j"),
            Ok(("journald:/run/j".into(), false, To::Journal("/run/j".into())))
        );
        assert_eq!(
            parse("exec:/bin/cat"),
            Ok(("exec:/bin/cat".into(), false, To::Program("/bin/cat".into())))
        );
        for wrong in [
            "",
            "file",
            "file:",
            "file:log",
            "exec:cat",
            "journald:",
            "syslog:/x",
            "required",
            "/x",
            ":/x",
        ] {
            assert_eq!(parse(wrong), Err(FORMS), "{wrong}");
        }
    }
}
