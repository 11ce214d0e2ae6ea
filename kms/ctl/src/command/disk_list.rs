//! `sealctl disk list`.

use clap::{Args, ValueEnum};
use sealblk_api::client::{Client, route};
use sealblk_api::{Disk, DiskList};

use super::bin;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, name_or, or_dash, yes_no};
use crate::size;
use crate::values::{Format, object};

pub(super) const HELP: &str = "\
Examples:
  sealctl disk list
  sealctl disk list --state in-use --instance web
  sealctl disk list --name logs --sort allocated
  sealctl disk list --wide
  sealctl disk list --deleted";

/// Arguments of `disk list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Deleted disks that can be restored.
    #[arg(long, conflicts_with_all = ["name", "state", "instance", "sort", "wide"])]
    deleted: bool,
    /// Only those with this in their names.
    #[arg(long, value_name = "PART")]
    name: Option<String>,
    /// Only those in this state, such as available or in-use.
    #[arg(long)]
    state: Option<String>,
    /// Only those that are attached to this instance: id or name.
    #[arg(long, value_parser = object)]
    instance: Option<String>,
    /// In which order: names upwards, sizes and times downwards.
    #[arg(long, value_enum, default_value_t)]
    sort: Order,
    /// More columns than fit most terminals.
    #[arg(long)]
    wide: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Order {
    #[default]
    Name,
    Size,
    Allocated,
    Created,
}

impl List {
    pub(crate) async fn run(self, client: &mut Client, format: Format) -> Result<Answer, Failure> {
        if self.deleted {
            return bin::answer(client).await;
        }
        let mut list: DiskList = client.list(&route(&["disks"])).await?;
        self.arrange(&mut list.disks);
        let columns = if self.wide { WIDE } else { COLUMNS };
        let mut blocks = vec![Block::table(&list.disks, columns)];
        if format == Format::Text {
            blocks.extend(bin::hint(client).await);
        }
        Answer::new(&list, blocks)
    }

    fn arrange(&self, disks: &mut Vec<Disk>) {
        disks.retain(|disk| {
            self.name
                .as_ref()
                .is_none_or(|part| disk.name.contains(part.as_str()))
                && self.state.as_ref().is_none_or(|state| disk.state == *state)
                && self.instance.as_ref().is_none_or(|instance| has(disk, instance))
        });
        disks.sort_by(|one, other| {
            let order = match self.sort {
                Order::Name => std::cmp::Ordering::Equal,
                Order::Size => other.size.cmp(&one.size),
                Order::Allocated => other.allocated.cmp(&one.allocated),
                Order::Created => other.created.cmp(&one.created),
            };
            order.then_with(|| one.name.cmp(&other.name))
        });
    }
}

fn has(disk: &Disk, instance: &String) -> bool {
    let mut attachments = disk.attachments.iter();
    attachments.any(|found| [&found.instance, &found.instance_name].contains(&instance))
}

/// What fits a terminal of 80 columns. The names are as good as ids everywhere.
const COLUMNS: &[Column<Disk>] = &[
    flexible("NAME", |disk| disk.name.clone()),
    fixed("SIZE", |disk| size::human(disk.size)),
    fixed("ALLOCATED", |disk| size::human(disk.allocated)),
    fixed("STATE", |disk| disk.state.clone()),
    fixed("ENCRYPTED", |disk| yes_no(disk.encrypted)),
    fixed("SNAPSHOTS", |disk| or_dash(&disk.snapshot_count)),
    flexible("INSTANCE", instances),
];

const WIDE: &[Column<Disk>] = &[
    fixed("ID", |disk| disk.id.clone()),
    flexible("NAME", |disk| disk.name.clone()),
    fixed("SIZE", |disk| size::human(disk.size)),
    fixed("ALLOCATED", |disk| size::human(disk.allocated)),
    fixed("STATE", |disk| disk.state.clone()),
    fixed("ENCRYPTED", |disk| yes_no(disk.encrypted)),
    fixed("SNAPSHOTS", |disk| or_dash(&disk.snapshot_count)),
    fixed("STORE", |disk| disk.store.clone()),
    fixed("KIND", |disk| disk.kind.clone()),
    fixed("TYPE", |disk| disk.disk_type.clone()),
    fixed("ROLE", |disk| disk.role.clone()),
    fixed("SHARED", |disk| yes_no(disk.shared)),
    flexible("INSTANCE", instances),
];

/// The instances that have it.
fn instances(disk: &Disk) -> String {
    let all = disk.attachments.iter();
    let all = all.map(|found| name_or(&found.instance_name, &found.instance));
    match all.collect::<Vec<_>>() {
        none if none.is_empty() => or_dash(&disk.instance),
        all => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, state: &str, (size, allocated): (u64, u64), instance: &str) -> Disk {
        let attachment = serde_json::json!({
            "id": "att-1", "instance": "ins-1", "instance_name": instance, "state": "serving", "socket": "/s", "queues": 1,
            "read_only": false, "connected": null, "qemu_version": null, "qemu_args": "", "qemu_machine_args": "",
            "qemu_disk_args": "", "cloud_hypervisor_args": ""});
        let attachments: Vec<_> = (!instance.is_empty()).then_some(attachment).into_iter().collect();
        let disk = serde_json::json!({
            "id": "disk-aaaaaaaaaaaaaaaa", "name": name, "serial": "s", "state": state, "encrypted": true, "kind": "cloud",
            "type": "ssd", "role": "data", "system_of": null, "shared": false, "on_full": "error", "size": size,
            "allocated": allocated, "shared_bytes": null, "deleting": null, "snapshots": null, "snapshot_count": 512,
            "snapshot": null, "store": "layered", "path": "/p", "zone": "z", "key": null, "key_version": null,
            "lineage": null, "attachment": null, "instance": null, "attachments": attachments, "pid": null, "socket": null,
            "connected": null, "stats": null, "copy": null, "warnings": [], "created": "t"});
        serde_json::from_value(disk).unwrap()
    }

    fn all() -> Vec<Disk> {
        vec![
            disk("logs", "available", (1023 << 20, 1023 << 20), ""),
            disk("data", "in-use", (10 << 30, 1 << 20), "web"),
            disk("logs-2", "error-resizing", (2 << 30, 1), ""),
        ]
    }

    fn names(words: &str) -> Vec<String> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            list: List,
        }
        let line: Line = clap::Parser::parse_from(std::iter::once("list").chain(words.split_whitespace()));
        let mut disks = all();
        line.list.arrange(&mut disks);
        disks.into_iter().map(|disk| disk.name).collect()
    }

    #[test]
    fn disks_are_chosen_and_in_order() {
        assert_eq!(names(""), ["data", "logs", "logs-2"]);
        assert_eq!(names("--sort size"), ["data", "logs-2", "logs"]);
        assert_eq!(names("--sort allocated"), ["logs", "data", "logs-2"]);
        assert_eq!(names("--name logs"), ["logs", "logs-2"]);
        assert_eq!(names("--state in-use"), ["data"]);
        assert_eq!(
            (names("--instance web"), names("--instance ins-1")),
            (vec!["data".to_owned()], vec!["data".to_owned()])
        );
        assert_eq!(names("--instance we"), Vec::<String>::new());
    }

    #[test]
    fn the_list_fits_a_terminal() {
        let mut disks = all();
        disks.push(disk(
            &"n".repeat(64),
            "in-use",
            (1023 << 30, 1023 << 20),
            &"i".repeat(64),
        ));
        let answer = Answer::new(&(), vec![Block::table(&disks, COLUMNS)]).unwrap();
        let text = answer.text(Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(
            text.contains("data") && text.contains("web") && text.contains("512"),
            "{text}"
        );
    }
}
