//! Callers: each makes one random call after the other, as a user of its account.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::draw::Draw;
use super::tally::Tally;
use super::world::{ACCOUNTS, Desk};

/// How many there are.
pub(super) const COUNT: usize = 8;
/// The longest that any call may take: an operation on storage that hangs, in a daemon that is being killed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The disk on the mount that can hang, of the first account.
const SLOW: &str = "slow";

const DISKS: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];
const INSTANCES: [&str; 3] = ["i0", "i1", "i2"];
const SNAPSHOTS: [&str; 3] = ["s0", "s1", "s2"];
const KEYS: [&str; 2] = ["k0", "k1"];
const IMAGES: [&str; 2] = ["m0", "m1"];
const BACKUPS: [&str; 2] = ["b0", "b1"];

/// Makes calls until it is over.
pub(super) fn call(number: usize, desk: &Desk, mut draw: Draw, tally: &Tally, over: &AtomicBool) {
    let account = number % ACCOUNTS.len();
    while !over.load(Ordering::SeqCst) {
        let arguments = next(&mut draw, account, desk);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let hung = desk.hangs.load(Ordering::SeqCst);
        let (outcome, time) = desk.sealctl(account, &arguments, PATIENCE);
        let Some(outcome) = outcome else {
            tally.wrong(format!("no answer to {arguments:?} within {PATIENCE:?}"));
            continue;
        };
        let code = match outcome.status {
            Some(0) => "done",
            Some(1) => refusal(&outcome.stderr),
            _ => "",
        };
        if code.is_empty() || code == "Internal" {
            tally.wrong(format!("{arguments:?}: {outcome:?}"));
        }
        tally.outcome(code);
        let beside = hung && desk.hangs.load(Ordering::SeqCst) && account != 0;
        if beside && code != "KmsNotRunning" {
            tally.beside_a_hang(time);
        }
    }
}

/// The code of `error: CODE (RULE): text`.
fn refusal(text: &str) -> &str {
    let line = text.lines().last().unwrap_or_default();
    let code = line.strip_prefix("error: ").unwrap_or_default();
    code.split([':', ' ']).next().unwrap_or_default()
}

/// Id of one of the account's objects that this list has in this field.
fn any_of(draw: &mut Draw, account: usize, desk: &Desk, list: &[&str], field: &str) -> Option<String> {
    let (outcome, _) = desk.sealctl(account, &[&["-o", "json"], list].concat(), PATIENCE);
    let list: Value = serde_json::from_str(&outcome?.stdout).ok()?;
    let objects = list[field].as_array().filter(|all| !all.is_empty())?;
    Some(draw.of(objects)["id"].as_str()?.to_owned())
}

/// A command line.
fn next(draw: &mut Draw, account: usize, desk: &Desk) -> Vec<String> {
    let disk = match account {
        0 if draw.once_in(4) => SLOW,
        _ => draw.of(&DISKS),
    };
    let (other, instance) = (*draw.of(&DISKS), *draw.of(&INSTANCES));
    let (snapshot, key, image) = (*draw.of(&SNAPSHOTS), *draw.of(&KEYS), *draw.of(&IMAGES));
    let backup = *draw.of(&BACKUPS);
    let of_disk = format!("{disk}/{snapshot}");
    let choice = draw.below(100);
    // Snapshots outlive their disks, and are named by their ids then. What is in the bin takes room, which is soon wanted.
    let any = match choice {
        20 => any_of(draw, account, desk, &["disk", "list", "--deleted"], "disks"),
        58..61 => any_of(draw, account, desk, &["snapshot", "list"], "snapshots"),
        _ => None,
    };
    let mut line: Vec<&str> = match choice {
        0..12 => vec![
            "disk",
            "create",
            disk,
            "--size",
            *draw.of(&["1MiB", "2MiB", "4MiB"]),
        ],
        12..14 => vec!["disk", "create", disk, "--size", "1MiB", "--key", key],
        14..17 => vec!["disk", "create", other, "--snapshot", &of_disk],
        17..19 => vec!["disk", "create", disk, "--image", image],
        19 => vec!["disk", "delete", disk],
        20 => vec!["disk", "delete", any.as_deref().unwrap_or(disk), "--now"],
        21..24 => vec!["disk", "delete", disk, "--now"],
        24 => vec!["disk", "restore", disk],
        25..29 => vec!["instance", "register", instance],
        29 => vec!["instance", "remove", instance],
        30..43 => vec!["attach", disk, instance, "--queues", "1"],
        43..51 => vec!["detach", disk],
        51..58 => vec!["snapshot", "create", disk, snapshot],
        58..61 => vec!["snapshot", "delete", any.as_deref().unwrap_or(&of_disk)],
        61..64 => vec!["rollback", disk, snapshot],
        64..66 => vec!["disk", "reinit", disk],
        66 => vec!["disk", "resize", disk, "--size", "6MiB"],
        67..69 => vec!["disk", "check", disk],
        69..71 => vec!["disk", "copy", other, disk, "--overwrite", "--no-wait"],
        71 => vec!["disk", "copy", "--cancel", disk],
        72 => vec!["image", "create", image, "--snapshot", &of_disk],
        73 => vec!["image", "delete", image],
        74 => vec!["backup", "create", disk, backup],
        75 => vec!["backup", "restore", backup, other],
        76 => vec!["backup", "delete", backup],
        77 => vec!["key", "create", key],
        78 => vec!["key", "rotate", key],
        79 => vec!["key", *draw.of(&["disable", "enable", "enable"]), key],
        80 => vec!["key", "schedule-deletion", key, "--days", "7", "--acknowledge"],
        81 => vec!["key", "cancel-deletion", key],
        82..84 => vec!["backend", "restart", disk],
        84 => vec!["disk", "set", disk, "--name", other],
        85..92 => vec!["disk", "show", disk],
        92..95 => vec!["disk", "list"],
        95 => vec!["snapshot", "list", disk],
        96 => vec!["key", "list"],
        97 => vec!["usage"],
        98 => vec!["audit", "--limit", "20"],
        _ => vec!["kms", "status"],
    };
    let creates = line.starts_with(&["disk", "create"]) && line[2] == SLOW;
    if creates && line.contains(&"--size") {
        line.extend(["--path", &desk.hanging_file]);
    } else if line.starts_with(&["disk", "create"]) && line.contains(&"--size") && draw.once_in(4) {
        line.extend(["--store", "raw"]);
    }
    let forced = line[0] == "detach" || line[0] == "rollback" || line.starts_with(&["disk", "reinit"]);
    if forced && draw.once_in(3) {
        line.push("--force");
    }
    line.iter().map(|word| (*word).to_owned()).collect()
}
