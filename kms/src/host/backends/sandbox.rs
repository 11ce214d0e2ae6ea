//! What keeps serving processes in bounds, should their guests take them over: what each has said of itself, and what one
//! that is started now would say.

use std::process::Output;

use super::child::{self, Program};
use crate::limits;

/// Of a process that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// A sandbox that lacks this, each as `name: cause`.
    Lacks(Vec<String>),
    /// No sandbox: the process is of an earlier version.
    None,
}

impl Sandbox {
    /// As its counters say.
    pub(super) fn of(said: Option<Vec<String>>) -> Self {
        said.map_or(Sandbox::None, Sandbox::Lacks)
    }

    /// Whether the sandbox lacks nothing.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Sandbox::Lacks(missing) if missing.is_empty())
    }

    /// Whether the sandbox lacks something that a process has which is started now.
    pub(crate) fn is_less_than(&self, now: &Checked) -> bool {
        let lacks = |name: &str| {
            let protections = now.as_deref().unwrap_or_default();
            protections
                .iter()
                .any(|other| other.name == name && other.cause.is_some())
        };
        match self {
            Sandbox::None => now.is_ok(),
            Sandbox::Lacks(missing) => missing
                .iter()
                .map(|missing| missing.split(':').next().unwrap_or_default())
                .any(|name| !lacks(name)),
        }
    }
}

/// A thing that keeps a process in bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) name: String,
    /// Why it cannot be had.
    pub(crate) cause: Option<String>,
}

/// What keeps a process in bounds that is started now; or why that is not known.
pub(crate) type Checked = Result<Vec<Protection>, String>;

/// Has the program try what it can have.
pub(super) async fn check(program: &Program) -> Checked {
    let path = program.path.to_string_lossy();
    let child = child::spawn_check(program).map_err(|error| format!("{path} cannot be started: {error}"))?;
    match tokio::time::timeout(limits::SANDBOX_CHECK_TIME, child.wait_with_output()).await {
        Ok(Ok(output)) => read(&output).ok_or_else(|| match output.status.code() {
            // As for any option that it does not know.
            Some(2) => format!("{path} is of an earlier version, without a sandbox"),
            _ => format!("{path} does not say what it can have ({})", output.status),
        }),
        Ok(Err(error)) => Err(format!("{path} cannot be heard: {error}")),
        Err(_) => Err(format!("{path} does not say in time what it can have")),
    }
}

/// Each line is `name: ok` or `name: missing: cause`; the status is 0 if nothing is missing.
fn read(output: &Output) -> Option<Vec<Protection>> {
    let text = std::str::from_utf8(&output.stdout).ok()?;
    let protections: Vec<_> = text.lines().map(protection).collect::<Option<_>>()?;
    let is_full = protections.iter().all(|protection| protection.cause.is_none());
    let says_so = output.status.success() && !protections.is_empty();
    (is_full == says_so).then_some(protections)
}

fn protection(line: &str) -> Option<Protection> {
    let (name, state) = line.split_once(": ")?;
    let cause = match state {
        "ok" => None,
        missing => Some(missing.strip_prefix("missing: ")?.to_owned()),
    };
    Some(Protection {
        name: name.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn said(status: i32, text: &str) -> Option<Vec<Protection>> {
        read(&Output {
            status: ExitStatus::from_raw(status << 8),
            stdout: text.into(),
            stderr: Vec::new(),
        })
    }

    #[test]
    fn only_what_agrees_with_its_status_is_believed() {
        let full = said(0, "system calls: ok\nnamespaces: ok\n").unwrap();
        assert_eq!(full.len(), 2);
        let part = said(1, "system calls: ok\nnamespaces: missing: no: not here\n").unwrap();
        assert_eq!(part[1].cause.as_deref(), Some("no: not here"));
        for (status, text) in [
            (0, "namespaces: missing: no\n"),
            (1, "namespaces: ok\n"),
            (0, ""),
            (0, "sealblk 1.0\n"),
            (0, "namespaces: perhaps\n"),
            (2, ""),
        ] {
            assert_eq!(said(status, text), None, "{status} {text:?}");
        }
    }

    #[test]
    fn a_process_is_compared_with_what_can_be_had_now() {
        let now = said(1, "system calls: ok\nnamespaces: missing: no\n").ok_or_else(String::new);
        let lacks = |names: &[&str]| Sandbox::Lacks(names.iter().map(|name| format!("{name}: no")).collect());
        assert!(!lacks(&[]).is_less_than(&now) && !lacks(&["namespaces"]).is_less_than(&now));
        assert!(lacks(&["namespaces", "system calls"]).is_less_than(&now));
        assert!(Sandbox::None.is_less_than(&now));
        // A new one would have none either.
        assert!(!Sandbox::None.is_less_than(&Err(String::new())));
    }
}
