//! The command line of `sealblk-kms`, carried out.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use env_logger::fmt::Formatter;
use log::Record;
use sealblk_api::arguments::{self, Cli, Command, LogLevel, Serve};

use crate::catalogue::root_key_kind::RootKeyKind;
use crate::daemon;
use crate::error::{Code, Error, Result};
use crate::offline::{backup, init, restore};
use crate::request;

impl From<arguments::RootKeyKind> for RootKeyKind {
    fn from(kind: arguments::RootKeyKind) -> Self {
        match kind {
            arguments::RootKeyKind::File => RootKeyKind::File,
            arguments::RootKeyKind::Passphrase => RootKeyKind::Passphrase,
            arguments::RootKeyKind::Credential => RootKeyKind::Credential,
        }
    }
}

/// Options of the disks' processes.
fn backend_arguments(serve: &Serve) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if serve.require_sandbox {
        arguments.push("--require-sandbox".into());
    }
    if let Some(micros) = serve.poll_time {
        arguments.extend(["--poll-time".into(), micros.to_string().into()]);
    }
    if !serve.pin.is_empty() {
        let processors: Vec<String> = serve.pin.iter().map(u32::to_string).collect();
        arguments.extend(["--pin".into(), processors.join(",").into()]);
    }
    if let Some(which) = &serve.memory_on {
        arguments.extend(["--memory-on".into(), which.into()]);
    }
    arguments
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = log_filter(cli.log_level);
    env_logger::Builder::new()
        .parse_filters(&filter)
        .format(log_line)
        .init();
    match run(cli.command, filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let rule = error
                .code()
                .rule()
                .map(|rule| format!(" ({rule})"))
                .unwrap_or_default();
            let text = format!("error: {}{rule}: {}", error.code().name(), error.full_message());
            // Standard error may be a file where there is no room.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn log_filter(level: Option<LogLevel>) -> String {
    let name = |level: LogLevel| level.to_possible_value().map(|value| value.get_name().to_owned());
    // The database library logs every statement as `info` where it takes long.
    let default = |level: String| format!("{level},sqlx=warn");
    match level.and_then(name) {
        Some(level) => default(level),
        None => std::env::var("RUST_LOG").unwrap_or_else(|_| default("info".to_owned())),
    }
}

/// A line has the id of the request that it is about, if it is about one.
fn log_line(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let (time, level) = (line.timestamp(), record.level());
    let style = line.default_level_style(level);
    let request = request::current().map(|id| format!("{id} ")).unwrap_or_default();
    // What goes on in the next line cannot be taken for another message.
    let text = record.args().to_string().replace('\n', "\n    ");
    writeln!(
        line,
        "[{time} {style}{level:<5}{style:#} {}] {request}{text}",
        record.target()
    )
}

fn run(command: Command, log_filter: String) -> Result<()> {
    let system = |error| Error::because(Code::Internal, "the process cannot be secured", error);
    sealblk_proto::process::forbid_core_dumps().map_err(system)?;
    sealblk_proto::process::keep_inherited().map_err(system)?;
    // Whatever is made is for this user alone, until it is given away on purpose.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(system)?;
    let result = runtime.block_on(async {
        match command {
            Command::Init(init) => {
                let zone = init.zone.unwrap_or_else(|| format!("{}-1", init.region));
                let region = init::Region {
                    region: init.region,
                    zone,
                    profile: init.profile,
                    balance: init.balance,
                    activate: init.activate,
                };
                init::init(
                    &init.state,
                    &region,
                    init.root_key.into(),
                    init.passphrase_file.as_deref(),
                )
                .await
            }
            Command::Serve(serve) => {
                sealblk_proto::process::raise_descriptor_limit().map_err(system)?;
                daemon::serve(daemon::Options {
                    backend_arguments: backend_arguments(&serve),
                    state: serve.state,
                    socket: serve.socket,
                    socket_owner: serve.socket_owner,
                    socket_mode: serve.socket_mode,
                    vhost_socket_owner: serve.vhost_socket_owner,
                    vhost_socket_mode: serve.vhost_socket_mode,
                    accounts: serve.accounts,
                    passphrase_file: serve.passphrase_file,
                    deletion_days_most: serve.deletion_days_most,
                    audit_sinks: serve.audit_sink,
                    backup_to: serve.backup_to,
                    sealblk: serve.sealblk,
                    require_sandbox: serve.require_sandbox,
                    log_filter,
                })
                .await
            }
            Command::Backup(backup) => {
                backup::backup(
                    &backup.state,
                    &backup.file,
                    backup.with_root_key,
                    backup.passphrase_file.as_deref(),
                    backup.root_passphrase_file.as_deref(),
                )
                .await
            }
            Command::Restore(restore) => {
                restore::restore(&restore.state, &restore.file, restore.passphrase_file.as_deref()).await
            }
        }
    });
    // Threads that wait for backends end with the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_on(options: &[&str]) -> Vec<String> {
        let arguments = ["sealblk-kms", "serve", "--state", "/s"].iter().chain(options);
        let cli = Cli::try_parse_from(arguments).unwrap();
        let Command::Serve(serve) = cli.command else {
            unreachable!()
        };
        let arguments = backend_arguments(&serve).into_iter();
        arguments
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_concerns_the_processes_is_handed_on() {
        assert_eq!(handed_on(&[]), Vec::<String>::new());
        assert_eq!(
            handed_on(&["--memory-on", "any", "--poll-time", "50", "--pin", "2,3"]),
            ["--poll-time", "50", "--pin", "2,3", "--memory-on", "any"]
        );
        assert_eq!(handed_on(&["--require-sandbox"]), ["--require-sandbox"]);
    }
}
