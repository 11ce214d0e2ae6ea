//! The daemon's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealblk_kms::cli::main()
}
