//! `sealctl snapshot schedule`, `schedules` and `unschedule`.

use clap::Args;
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{Schedule, ScheduleList, ScheduleSnapshots};

use crate::failure::Failure;
use crate::interval;
use crate::output::{Answer, Block, fixed, flexible, or_dash};
use crate::values::object;

pub(super) const HELP: &str = "\
The daemon takes the first one soon, then one in each interval, and deletes the oldest of them when there are more than --keep. \
Snapshots that were taken otherwise do not count and stay. What was missed while the daemon was off is made up once. Each counts as \
a call of whoever has made the schedule. If one fails, it is tried again after five minutes at most, `snapshot schedules` shows why, \
and `kms status` warns.

A disk has one schedule: a second one takes its place, and goes on with its snapshots.

Examples:
  sealctl snapshot schedule data --every 6h --keep 28
  sealctl snapshot schedule data --every 1d --keep 7 --name nightly";

/// What a schedule is.
#[derive(Debug, Args)]
pub(crate) struct NewSchedule {
    /// Id or name of the disk.
    #[arg(value_parser = object)]
    disk: String,
    /// From one to the next: minutes, hours, days or weeks, such as 15m, 6h, 1d or 2w.
    #[arg(long, value_name = "INTERVAL", value_parser = interval::parse)]
    every: u64,
    /// How many of them stay, 511 at most.
    #[arg(long, value_name = "NUMBER")]
    keep: u32,
    /// What their names begin with; a hyphen and the time follow [default: auto].
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
}

impl NewSchedule {
    pub(super) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let NewSchedule {
            disk,
            every,
            keep,
            name,
        } = self;
        let body = ScheduleSnapshots {
            every_seconds: every,
            keep,
            name,
        };
        let path = route(&["disks", &disk, "snapshot-schedule"]);
        let schedule: Schedule = client.post(&path, &body, Patience::Change).await?;
        Answer::new(&schedule, fields(&schedule))
    }
}

pub(super) async fn list(client: &mut Client) -> Result<Answer, Failure> {
    let list: ScheduleList = client.list(&route(&["snapshot-schedules"])).await?;
    let columns = [
        flexible("DISK", |schedule: &Schedule| schedule.disk_name.clone()),
        flexible("NAME", |schedule| schedule.name.clone()),
        fixed("EVERY", |schedule| interval::human(schedule.every_seconds)),
        fixed("KEEP", |schedule| schedule.keep.to_string()),
        fixed("SNAPSHOTS", |schedule| schedule.snapshots.to_string()),
        fixed("NEXT", |schedule| schedule.next_snapshot.clone()),
        flexible("ERROR", |schedule| or_dash(&schedule.last_error)),
    ];
    Answer::new(&list, vec![Block::table(&list.schedules, &columns)])
}

pub(super) async fn remove(client: &mut Client, disk: &str) -> Result<Answer, Failure> {
    let schedule: Schedule = client
        .delete(&route(&["disks", disk, "snapshot-schedule"]))
        .await?;
    let text = format!(
        "no more snapshots of disk {} are taken by schedule; those that there are stay: {}",
        schedule.disk_name, schedule.snapshots
    );
    Answer::new(&schedule, vec![Block::Line(text)])
}

fn fields(schedule: &Schedule) -> Vec<Block> {
    let mut fields = vec![
        ("id", schedule.id.clone()),
        ("disk", schedule.disk_name.clone()),
        ("name", schedule.name.clone()),
        ("every", interval::human(schedule.every_seconds)),
        ("keep", schedule.keep.to_string()),
        ("snapshots", schedule.snapshots.to_string()),
        ("next", schedule.next_snapshot.clone()),
        ("last", or_dash(&schedule.last_snapshot)),
    ];
    if let Some(error) = &schedule.last_error {
        fields.push(("error", error.clone()));
    }
    vec![Block::Fields(fields)]
}
