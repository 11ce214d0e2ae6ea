//! `sealctl completions`.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output::{self, Answer};

/// Prints a completion script.
#[derive(Args, Debug)]
#[command(after_help = "\
No daemon is asked. Names of disks and instances are not completed.

Examples:
  sealctl completions bash > /usr/share/bash-completion/completions/sealctl
  sealctl completions zsh > /usr/share/zsh/vendor-completions/_sealctl
  sealctl completions fish > /usr/share/fish/vendor_completions.d/sealctl.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut sealctl: Command) -> Result<Answer, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut sealctl, "sealctl", &mut script);
        output::write(&String::from_utf8_lossy(&script))?;
        Ok(Answer::said())
    }
}
