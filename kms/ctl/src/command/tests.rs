//! The command line itself: what it accepts, and what its help says.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;
use crate::values::path;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn kind(line: &str) -> ErrorKind {
    parse(line).unwrap_err().kind()
}

#[test]
fn every_documented_form_parses() {
    Cli::command().debug_assert();
    let lines = [
        "sealctl kms activate",
        "sealctl --socket /s -o json kms status",
        "sealctl kms status --socket /s -o text",
        "sealctl kms status --watch",
        "sealctl kms status --check",
        "sealctl kms grant",
        "sealctl kms revoke",
        "sealctl kms profile",
        "sealctl account list",
        "sealctl account show a",
        "sealctl account credit a 5",
        "sealctl key list",
        "sealctl key show key-1",
        "sealctl instance register i --zone z --local-storage --bare-metal",
        "sealctl instance register i --vm-socket s --boot-disk /b",
        "sealctl instance register i --disk name=a,size=1G --disk name=b,size=1G,encrypted=false,kind=local",
        "sealctl instance list",
        "sealctl instance show i",
        "sealctl instance remove i",
        "sealctl instance set i --name j",
        "sealctl instance set i --vm-socket s --boot-disk b --local-storage --bare-metal=false",
        "sealctl instance register i --vhost-socket-owner a:b --vhost-socket-mode 0660",
        "sealctl instance set i --vhost-socket-owner a:b --vhost-socket-mode 0660",
        "sealctl instance set i --no-vhost-socket",
        "sealctl instance set i --no-vm-socket --no-boot-disk --local-storage=false",
        "sealctl disk create d --size 1GiB",
        "sealctl disk create d --size 0 --encrypted --store layered",
        "sealctl disk create d --size 513 --encrypted=false --store raw --path f --zone z",
        "sealctl disk create d --snapshot e/s",
        "sealctl disk create d --snapshot s --size 2GiB --encrypted=false",
        "sealctl disk create d --size 1G --encrypted=false --kind local --type essd",
        "sealctl disk set d --name e",
        "sealctl disk set d --encrypted=false --key k",
        "sealctl snapshot set d/s --name t --encrypted --key k",
        "sealctl snapshot copy d/s --to-region r",
        "sealctl disk list",
        "sealctl disk attachments d",
        "sealctl disk attachments d i --format libvirt --qemu-version 7.2",
        "sealctl attach d i --vhost-socket-owner a:b --vhost-socket-mode 0660 --format qemu-disk",
        "sealctl disk resize d --size 2GiB",
        "sealctl disk reinit d --force",
        "sealctl disk check d",
        "sealctl disk check d --repair",
        "sealctl snapshot create d s",
        "sealctl snapshot create-group i n --skip-raw",
        "sealctl snapshot schedule d --every 6h --keep 28 --name p",
        "sealctl snapshot schedules",
        "sealctl snapshot unschedule d",
        "sealctl snapshot list",
        "sealctl snapshot list d",
        "sealctl snapshot show d/s",
        "sealctl snapshot delete s",
        "sealctl disk create d --image a/i",
        "sealctl instance register i --disk name=a,image=b",
        "sealctl disk create d --size 1G --role system",
        "sealctl instance register i --system-disk image=b,size=1G,encrypted=true,key=k --disk name=a,size=1G",
        "sealctl image create i --snapshot d/s",
        "sealctl image create i --disk d",
        "sealctl image list",
        "sealctl image show a/i",
        "sealctl image set i --name j",
        "sealctl image set i --encrypted=false --key k",
        "sealctl image share i --account a",
        "sealctl image unshare i --account a",
        "sealctl image copy i --to-region r",
        "sealctl image copy i j --encrypt --key k",
        "sealctl image export i f",
        "sealctl image delete i",
        "sealctl rollback d s",
        "sealctl rollback d s --force",
        "sealctl disk show d",
        "sealctl disk show d --watch",
        "sealctl disk delete d",
        "sealctl disk delete d --retention 30",
        "sealctl disk delete d --now --yes",
        "sealctl disk list --deleted",
        "sealctl disk list --name a --state in-use --instance i --sort allocated --wide",
        "sealctl disk restore d",
        "sealctl disk restore d --name e",
        "sealctl disk reinit d --yes",
        "sealctl rollback d s --yes",
        "sealctl snapshot delete s --yes",
        "sealctl key schedule-deletion k --days 7 --acknowledge --yes",
        "sealctl backup delete b --yes",
        "sealctl image delete i --yes",
        "sealctl instance remove i --yes",
        "sealctl attach d i --queues 2 --read-only --vhost-socket s --socket-owner a:b --socket-mode 0660 --no-start --accept-older",
        "sealctl detach d",
        "sealctl detach d i --force",
        "sealctl usage",
        "sealctl audit archive --before 5 f",
        "sealctl audit verify --archive f --archive g",
        "sealctl audit",
        "sealctl audit --limit 3 --after 7",
        "sealctl audit list --limit 3 --after 7",
        "sealctl audit list --disk d --key k --instance i --request r --since 2026-11-01 --until 2026-11-02",
        "sealctl audit --disk d",
        "sealctl audit follow --disk d",
        "sealctl audit follow",
        "sealctl audit follow --after 7",
        "sealctl audit verify",
        "sealctl audit verify --export f",
        "sealctl audit export f",
        "sealctl completions bash",
        "sealctl man d",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn wrong_usage_is_found() {
    for line in [
        "sealctl disk create d --size 1GB",
        "sealctl disk create d --size 1.5G",
        "sealctl disk delete d --retention 366",
        "sealctl audit --limit 0",
        "sealctl audit list --limit 0",
        "sealctl audit verify --head 12",
        "sealctl audit verify --head 12:00",
        "sealctl instance register i --disk size=1G",
        "sealctl instance register i --system-disk size=1G",
    ] {
        assert_eq!(kind(line), ErrorKind::ValueValidation, "{line}");
    }
    assert_eq!(
        kind("sealctl disk create d --size 1G --encrypted=maybe"),
        ErrorKind::InvalidValue
    );
    assert_eq!(kind("sealctl disk create d"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl instance set i"), ErrorKind::MissingRequiredArgument);
    assert_eq!(
        kind("sealctl instance set i --vm-socket s --no-vm-socket"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        kind("sealctl disk delete d --now --retention 0"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(kind("sealctl disk set d"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl snapshot set s"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl image create i"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl image copy i"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl image copy i j"), ErrorKind::MissingRequiredArgument);
    assert_eq!(
        kind("sealctl image copy i j --encrypt --to-region r"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        kind("sealctl image create i --disk d --snapshot s"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        kind("sealctl snapshot copy s"),
        ErrorKind::MissingRequiredArgument
    );
    assert_eq!(
        kind("sealctl disk create d --size 1G --encrypted false"),
        ErrorKind::UnknownArgument
    );
    assert_eq!(kind("sealctl disk resize d"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl audit export"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("sealctl audit --limit 3 list"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("sealctl frobnicate"), ErrorKind::InvalidSubcommand);
    let empty = Cli::try_parse_from(["sealctl", "disk", "show", ""]).unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::ValueValidation);
}

#[test]
fn what_is_missing_is_named_and_nothing_else() {
    let error = parse("sealctl disk create d").unwrap_err().to_string();
    for option in ["--size", "--snapshot", "--image"] {
        assert!(error.contains(option), "{error}");
    }
    assert!(!error.contains("--socket"), "{error}");
}

#[test]
fn the_daemon_decides_on_encryption_unless_asked() {
    let encrypted = |line: &str| match parse(line).unwrap().command {
        Command::Asking(Asking::Disk(disk::Disk::Create(create))) => create.body().encrypted,
        other => panic!("{other:?}"),
    };
    assert_eq!(encrypted("sealctl disk create d --size 1G"), None);
    assert_eq!(
        encrypted("sealctl disk create d --size 1G --encrypted"),
        Some(true)
    );
    assert_eq!(
        encrypted("sealctl disk create d --size 1G --encrypted=true"),
        Some(true)
    );
    assert_eq!(
        encrypted("sealctl disk create d --size 1G --encrypted=false"),
        Some(false)
    );
}

#[test]
fn paths_for_the_daemon_are_absolute() {
    let command = parse("sealctl attach d i --vhost-socket s.sock").unwrap().command;
    let expected = std::env::current_dir().unwrap().join("s.sock");
    assert!(
        format!("{command:?}").contains(&format!("Some({expected:?})")),
        "{command:?}"
    );
}

#[test]
fn every_command_has_help_with_an_example() {
    fn check(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        let name = command.get_name().to_owned();
        if command.get_subcommands().count() == 0 {
            assert!(help.contains("Example"), "{name}: {help}");
            assert!(help.contains("  sealctl "), "{name}: {help}");
        }
        assert!(command.get_about().is_some(), "{name}");
        command
            .get_subcommands_mut()
            .filter(|sub| sub.get_name() != "help")
            .for_each(check);
    }
    check(&mut Cli::command());
    let mut command = Cli::command();
    command.build();
    let create = command
        .find_subcommand_mut("disk")
        .unwrap()
        .find_subcommand_mut("create")
        .unwrap();
    let help = create.render_long_help().to_string();
    assert!(help.contains("reads zeros where it was not"), "{help}");
    assert!(
        Cli::command()
            .render_long_help()
            .to_string()
            .contains("/var/lib/sealblk/kms.sock")
    );
}

#[test]
fn relative_paths_become_absolute() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(path("a/b").unwrap(), here.join("a/b").to_str().unwrap());
    assert_eq!(path("/a/b").unwrap(), "/a/b");
    assert!(path("").is_err());
}
