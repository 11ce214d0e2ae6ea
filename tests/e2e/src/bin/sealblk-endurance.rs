//! `sealblk-endurance SECONDS SEED [LIBFAKETIME]`: see `scripts/endurance`.

use std::process::ExitCode;
use std::time::Duration;

use sealblk_e2e::endurance::{Options, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers = arguments.iter().map_while(|word| word.parse::<u64>().ok());
    let [seconds, seed] = numbers.collect::<Vec<_>>()[..] else {
        eprintln!("sealblk-endurance SECONDS SEED [LIBFAKETIME]");
        return ExitCode::from(2);
    };
    let options = Options {
        time: Duration::from_secs(seconds),
        seed,
        faketime: arguments.get(2).cloned(),
    };
    if run(&options) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
