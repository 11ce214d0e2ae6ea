//! The question before what cannot be undone. It is asked at a terminal alone, so that no script waits for an answer.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use sealblk_api::client::Client;

use crate::failure::Failure;
use crate::printable::printable;

/// Whether to ask.
#[derive(Args, Debug)]
pub(crate) struct Confirm {
    /// Do not ask. Where standard input or standard error is no terminal, nothing is asked anyhow.
    #[arg(long)]
    yes: bool,
}

impl Confirm {
    /// Whether there is somebody to be asked.
    pub(crate) fn is_needed(&self) -> bool {
        !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks whether to go on, with a sentence on what is lost then.
    ///
    /// # Errors
    /// [`Failure::NotConfirmed`]; the terminal's, and the client's.
    pub(crate) async fn ask(client: &mut Client, lost: &str) -> Result<(), Failure> {
        let mut stderr = io::stderr();
        let mut answer = String::new();
        write!(stderr, "{}. Go on? [y/N] ", printable(lost))
            .and_then(|()| stderr.flush())
            .and_then(|()| io::stdin().read_line(&mut answer))
            .map_err(|error| Failure::Standard("input", error))?;
        if !is_yes(&answer) {
            return Err(Failure::NotConfirmed);
        }
        // Meanwhile the daemon may have ended the connection.
        Ok(client.reconnect().await?)
    }
}

fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_yes_is_yes() {
        for yes in ["y\n", "Y\n", "yes\n", " YES \r\n", "y"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "yes, but\n", "ja\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
