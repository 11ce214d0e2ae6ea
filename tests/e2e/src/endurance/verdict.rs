//! What must be true when the weather has calmed down.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::Row;

use super::tally::Tally;
use super::world::{ACCOUNTS, World};
use crate::catalogue::Catalogue;
use crate::fuse::Answers;
use crate::process;

/// How long what was left may take to be ended.
const PATIENCE: Duration = Duration::from_secs(180);

/// Looks at everything, and then removes everything.
pub(super) fn judge(world: &mut World, tally: &Tally) {
    world.fuse.answer(Answers::AtOnce);
    world.move_clock("+0");
    world.kms.kill();
    world.serve();
    let open = "SELECT (SELECT count(*) FROM intents) + (SELECT count(*) FROM copies WHERE phase IN ('copy', 'verify')) AS number";
    settle(world, tally, "intents and copies", open);
    let passing = "SELECT count(*) AS number FROM disks WHERE state NOT IN ('available', 'in-use')";
    settle(
        world,
        tally,
        "disks that are neither available nor in use",
        passing,
    );
    if number(
        world,
        "SELECT count(*) AS number FROM keys WHERE state = 'Destroyed'",
    ) != 0
    {
        tally.wrong("a key was destroyed before its day");
    }
    for account in 0..ACCOUNTS.len() {
        empty_bin(world, account, tally);
        check_usage(world, account, tally);
        check_disks(world, account, tally);
    }
    let verified = world.kms.sealctl(&["audit", "verify"]);
    if verified.status != Some(0) {
        tally.wrong(format!("the audit log does not verify: {verified:?}"));
    }
    for account in 0..ACCOUNTS.len() {
        remove_all(world, account, tally);
    }
    for what in [
        "volumes",
        "lineages",
        "attachments",
        "services",
        "snapshots",
        "images",
    ] {
        settle(
            world,
            tally,
            what,
            &format!("SELECT count(*) AS number FROM {what}"),
        );
    }
    for directory in ["disks", "backups", "run"] {
        let left: Vec<_> = std::fs::read_dir(world.kms.state().join(directory))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        if !left.is_empty() {
            tally.wrong(format!("left in {directory}: {left:?}"));
        }
    }
    let run = world.kms.state().join("run");
    let end = Instant::now() + PATIENCE;
    while !process::processes_of(&run).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    for pid in process::processes_of(&run) {
        tally.wrong(format!("left running: {pid} {}", process::arguments(pid)));
    }
    if world.kms.log_text().contains("panicked") {
        tally.wrong("the daemon panicked: see its log");
    }
    let used = std::process::Command::new("du")
        .arg("-sk")
        .arg(world.root())
        .output();
    let used = used.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    println!(
        "left on the file system, KiB: {}",
        used.unwrap_or_default().trim()
    );
}

fn number(world: &World, query: &str) -> i64 {
    Catalogue::open(&world.kms.state()).row(query).get("number")
}

/// Waits until the query gives 0.
fn settle(world: &World, tally: &Tally, what: &str, query: &str) {
    let end = Instant::now() + PATIENCE;
    while number(world, query) != 0 {
        if Instant::now() > end {
            tally.wrong(format!("{} {what} are left", number(world, query)));
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Rule M01: what is charged is what was allowed and not undone.
fn check_usage(world: &World, account: usize, tally: &Tally) {
    let name = ACCOUNTS[account];
    let metered = "CASE call WHEN 'disk.create' THEN 'create' WHEN 'snapshot.create' THEN 'snapshot'
                   WHEN 'disk.reinit' THEN 'reinit' ELSE call END";
    let query = format!(
        "SELECT {metered} AS kind, count(*) AS number FROM audit AS allowed
         WHERE account = '{name}' AND decision = 'allowed'
           AND call IN ('disk.create', 'attach', 'detach', 'snapshot.create', 'rollback', 'disk.reinit')
           AND NOT EXISTS (SELECT 1 FROM audit AS undone WHERE undone.request = allowed.request
                           AND undone.call = allowed.call AND undone.seq > allowed.seq
                           AND undone.decision <> 'allowed')
         GROUP BY kind"
    );
    let usage = "SELECT sum(calls) AS number FROM usage";
    let mut catalogue = Catalogue::open(&world.kms.state());
    for row in catalogue.rows(&query) {
        let (kind, allowed): (String, i64) = (row.get("kind"), row.get("number"));
        let charged = format!("{usage} WHERE account = '{name}' AND kind = '{kind}'");
        let charged: Option<i64> = catalogue.row(&charged).get("number");
        if charged != Some(allowed) {
            tally.wrong(format!(
                "{name}: {allowed} calls {kind} were allowed, {charged:?} charged"
            ));
        }
    }
}

fn list(world: &World, account: usize, kind: &str, tally: &Tally) -> Vec<Value> {
    let (answer, _) = world
        .desk
        .sealctl(account, &["-o", "json", kind, "list"], PATIENCE);
    match answer {
        Some(outcome) if outcome.status == Some(0) => {
            let mut page = outcome.json();
            let field = format!("{kind}s");
            page[field].as_array_mut().map(std::mem::take).unwrap_or_default()
        }
        other => {
            tally.wrong(format!("{kind} list: {other:?}"));
            Vec::new()
        }
    }
}

/// Every disk is detached, and its store is sound.
fn check_disks(world: &World, account: usize, tally: &Tally) {
    for disk in list(world, account, "disk", tally) {
        let id = disk["id"].as_str().unwrap_or_default();
        let call = |arguments: &[&str]| {
            let (answer, _) = world.desk.sealctl(account, arguments, PATIENCE);
            if answer.as_ref().is_none_or(|outcome| outcome.status != Some(0)) {
                tally.wrong(format!("{arguments:?}: {answer:?}; {disk}"));
            }
        };
        if disk["state"] == "in-use" {
            call(&["detach", id, "--force"]);
        }
        if disk["store"] == "layered" {
            call(&["disk", "check", id]);
            call(&["snapshot", "list", id]);
        }
    }
}

/// Disks of an account that are brought back from the bin; of what is there else the room is wanted.
const RESTORED: usize = 4;

/// Empties the bin: some disks are brought back, under names that no other disk has.
fn empty_bin(world: &World, account: usize, tally: &Tally) {
    let (answer, _) = world
        .desk
        .sealctl(account, &["-o", "json", "disk", "list", "--deleted"], PATIENCE);
    let Some(outcome) = answer.filter(|outcome| outcome.status == Some(0)) else {
        return tally.wrong(format!("the bin of account {account} cannot be listed"));
    };
    let list = outcome.json();
    let bin = list["disks"].as_array().into_iter().flatten().enumerate();
    // The last ones first, and so the restored ones when there is room.
    for (number, disk) in bin.collect::<Vec<_>>().into_iter().rev() {
        let (id, name) = (
            disk["id"].as_str().unwrap_or_default(),
            format!("restored-{number}"),
        );
        let call = match number < RESTORED {
            true => ["disk", "restore", id, "--name", &name],
            false => ["disk", "delete", id, "--now", "--yes"],
        };
        let (answer, _) = world.desk.sealctl(account, &call, PATIENCE);
        if answer.as_ref().is_none_or(|outcome| outcome.status != Some(0)) {
            tally.wrong(format!("{call:?}: {answer:?}; {disk}"));
        }
    }
}

fn remove_all(world: &World, account: usize, tally: &Tally) {
    // A list has a page's length.
    for kind in ["backup", "image", "disk", "snapshot", "instance"] {
        let verb = if kind == "instance" { "remove" } else { "delete" };
        loop {
            let objects = list(world, account, kind, tally);
            if objects.is_empty() {
                break;
            }
            let mut failed = false;
            for object in objects {
                let id = object["id"].as_str().unwrap_or_default();
                let mut call = vec![kind, verb, id];
                if kind == "disk" {
                    call.push("--now");
                }
                let (answer, _) = world.desk.sealctl(account, &call, PATIENCE);
                if answer.as_ref().is_none_or(|outcome| outcome.status != Some(0)) {
                    tally.wrong(format!("{kind} {verb} {object}: {answer:?}"));
                    failed = true;
                }
            }
            if failed {
                break;
            }
        }
    }
}
