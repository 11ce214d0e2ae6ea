//! `sealctl disk delete`, `disk restore`, and the bin between them.

use clap::Args;
use sealblk_api::client::{Client, ClientError, Patience, route, with};
use sealblk_api::limits::RETENTION_DAYS_MOST;
use sealblk_api::{self as api, Code, DiskList, KmsStatus, Profile, RestoreDisk};

use super::disk_fields::fields;
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash, yes_no};
use crate::size;
use crate::values::object;

const DELETE_HELP: &str = "\
The disk is in the bin for as many days as the profile has (`sealctl kms profile`), or as --retention says, and \
`disk restore` brings it back. It is in no other list, its name is free at once, and it takes the space that it took. The \
days must be seen to pass by the daemon: while it does not run, and by a clock that jumps, none of them passes.

When they are over, or at once with --now, a file that was made for the disk is removed. A file that was there before (empty) \
is made empty again and stays. A block device stays as it is. A file that is not the one that the disk was created on stays, \
too. A disk that is in the bin is removed by its id.

The disk's snapshots stay, and the file with them; disks can still be made from them. The last of the disk, its \
snapshots and the disks made from them takes the key with it (rule K14).

Examples:
  sealctl disk delete data
  sealctl disk delete data --retention 30
  sealctl disk delete data --now
  sealctl disk delete disk-0123456789abcdef --now --yes";

const RESTORE_HELP: &str = "\
It is the disk that it was: with its id, its serial in the guest, its key and its snapshots.

Examples:
  sealctl disk list --deleted
  sealctl disk restore data
  sealctl disk restore disk-0123456789abcdef --name data-2";

/// Arguments of `disk delete`.
#[derive(Args, Debug)]
#[command(after_help = DELETE_HELP)]
pub(crate) struct Delete {
    /// Id or name of the disk.
    #[arg(value_parser = object)]
    disk: String,
    /// Days for which it can be restored, at most 365; 0: none [default: the profile's].
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(..=i64::from(RETENTION_DAYS_MOST)))]
    retention: Option<u16>,
    /// Delete it for ever; also one that is in the bin. The same as --retention 0.
    #[arg(long, conflicts_with = "retention")]
    now: bool,
    #[command(flatten)]
    confirm: Confirm,
}

/// Arguments of `disk restore`.
#[derive(Args, Debug)]
#[command(after_help = RESTORE_HELP)]
pub(crate) struct Restore {
    /// Id of the disk, or the name that it had, if no other deleted disk had that.
    #[arg(value_parser = object)]
    disk: String,
    /// Its name from now on [default: the one that it had].
    #[arg(long)]
    name: Option<String>,
}

impl Delete {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let days = if self.now { Some(0) } else { self.retention };
        if days.is_some_and(|days| days > 0) {
            check_bin(client).await?;
        }
        let mut wanted = self.disk;
        if self.confirm.is_needed() && retention(client, days).await? == 0 {
            let disk = found(client, &wanted).await?;
            let lost = format!(
                "Disk {} ({}, {}) goes for ever, with all its data but its snapshots",
                disk.name,
                disk.id,
                size::human(disk.size)
            );
            Confirm::ask(client, &lost).await?;
            wanted = disk.id;
        }
        let mut path = route(&["disks", &wanted]);
        if let Some(days) = days {
            path = with(&path, "retention_days", &days.to_string());
        }
        let disk: api::Disk = client.delete(&path).await?;
        let until = disk.removal.as_ref().map(|until| {
            format!(
                ", and can be restored until {until}: sealctl disk restore {}",
                disk.id
            )
        });
        let text = format!(
            "disk {} ({}) is deleted{}",
            disk.name,
            disk.id,
            until.unwrap_or_default()
        );
        Answer::new(&disk, vec![Block::Line(text)])
    }
}

/// A daemon of before there was a bin does not know the days, and would delete the disk at once.
async fn check_bin(client: &mut Client) -> Result<(), Failure> {
    let status: KmsStatus = client.get(&route(&["kms"])).await?;
    match status.bin {
        Some(_) => Ok(()),
        None => Err(Failure::NoBin(status.version)),
    }
}

/// Days for which a disk can be restored that is deleted so.
async fn retention(client: &mut Client, asked: Option<u16>) -> Result<u16, Failure> {
    match asked {
        Some(days) => Ok(days),
        None => Ok(client.get::<Profile>(&route(&["profile"])).await?.retention),
    }
}

/// The disk, which may be in the bin.
async fn found(client: &mut Client, wanted: &str) -> Result<api::Disk, Failure> {
    let refusal = match client.get(&route(&["disks", wanted])).await {
        Err(ClientError::Refused(refusal)) if refusal.code == Code::DiskDeleted.name() => refusal,
        found => return Ok(found?),
    };
    let mut deleted = list(client).await?.disks.into_iter();
    let named = deleted.find(|disk| disk.id == wanted);
    named.ok_or(Failure::Refused(refusal))
}

impl Restore {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let path = route(&["disks", &self.disk, "restore"]);
        let body = RestoreDisk { name: self.name };
        let disk: api::Disk = client.post(&path, &body, Patience::Change).await?;
        Answer::new(&disk, fields(&disk))
    }
}

/// The deleted disks.
async fn list(client: &mut Client) -> Result<DiskList, Failure> {
    Ok(client.list(&with(&route(&["disks"]), "deleted", "true")).await?)
}

const COLUMNS: &[Column<api::Disk>] = &[
    fixed("ID", |disk| disk.id.clone()),
    flexible("NAME", |disk| disk.name.clone()),
    fixed("SIZE", |disk| size::human(disk.size)),
    fixed("ALLOCATED", |disk| size::human(disk.allocated)),
    fixed("ENCRYPTED", |disk| yes_no(disk.encrypted)),
    fixed("DELETED", |disk| or_dash(&disk.deleted)),
    fixed("UNTIL", |disk| or_dash(&disk.removal)),
];

/// `disk list --deleted`.
pub(super) async fn answer(client: &mut Client) -> Result<Answer, Failure> {
    let list = list(client).await?;
    Answer::new(&list, vec![Block::table(&list.disks, COLUMNS)])
}

/// What there is in the bin, below the list of disks, which is shown also where this is not known.
pub(super) async fn hint(client: &mut Client) -> Option<Block> {
    let status: KmsStatus = client.get(&route(&["kms"])).await.ok()?;
    let content = content(&status)?;
    Some(Block::Line(format!(
        "in the bin: {content}, see `sealctl disk list --deleted`"
    )))
}

/// `3 disks, 12 GiB`, if there are any.
pub(super) fn content(status: &KmsStatus) -> Option<String> {
    let bin = status.bin.filter(|bin| bin.disks > 0)?;
    let disks = if bin.disks == 1 { "disk" } else { "disks" };
    Some(format!("{} {disks}, {}", bin.disks, size::human(bin.allocated)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_hint_that_fails_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kms.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect(&path).await.unwrap();
        drop(listener.accept().unwrap());
        assert!(hint(&mut client).await.is_none());
    }
}
