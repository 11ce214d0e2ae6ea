//! `--encrypted`, with a value or without.

use clap::{ArgAction, Args};

/// Whether data is encrypted, where that can be chosen. Each command says in its own words what it is otherwise.
#[derive(Args, Debug)]
pub(crate) struct Encryption {
    /// Whether its data is encrypted.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "true|false",
        hide_possible_values = true
    )]
    pub(super) encrypted: Option<bool>,
}
