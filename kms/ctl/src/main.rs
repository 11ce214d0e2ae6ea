//! `sealctl`: the operator's command line of sealblk.
//!
//! It speaks to the daemon `sealblk-kms` over the daemon's Unix socket and holds nothing itself. Exit status: 0 done,
//! 1 refused or failed (the reason is on standard error), 2 wrong usage, 3 `kms status --check` has found something.

mod command;
mod confirm;
mod failure;
mod interval;
mod output;
mod printable;
mod size;
mod standard;
mod values;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::command::Cli;
use crate::failure::Failure;
use crate::output::Answer;
use crate::values::Format;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.output;
    match execute(cli).and_then(|answer| answer.print(format).map(|_| answer.status)) {
        // Also where nobody reads the answer: what was asked for is done.
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            report(&failure, format);
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::Runtime)?.block_on(cli.run())
}

fn report(failure: &Failure, format: Format) {
    let error = failure.to_api_error();
    let line = match format {
        Format::Json => serde_json::to_string(&error).unwrap_or_else(|_| failure::line(&error)),
        Format::Text => failure::line(&error),
    };
    // There is nowhere left to say that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
