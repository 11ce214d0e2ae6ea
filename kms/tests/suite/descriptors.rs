//! The daemon's limit of open files.

use crate::common::{Kms, MIB, json};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// What a daemon needs that serves a handful of disks, and less than it needs for a dozen.
const FEW: u64 = 64;

fn limits(kms: &Kms) -> (String, String) {
    let all = std::fs::read_to_string(format!("/proc/{}/limits", kms.pid())).unwrap();
    let line = all
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let mut words = line.split_whitespace().skip(3).map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn a_low_soft_limit_keeps_no_disk_from_being_attached() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(FEW),
            ..own
        },
    )
    .unwrap();
    let kms = Kms::active();
    setrlimit(Resource::Nofile, own).unwrap();
    let (soft, hard) = limits(&kms);
    assert_eq!(soft, hard);
    kms.instance("vm");
    for number in 0..12 {
        let name = format!("d{number}");
        kms.disk(&name);
        kms.attach(&name, "vm");
    }
}

#[test]
fn an_error_names_the_limit_that_was_reached() {
    let kms = Kms::active();
    kms.instance("vm");
    let process = Pid::from_raw(kms.pid().cast_signed());
    // Enough for the call itself, and not for what it opens.
    let open = std::fs::read_dir(format!("/proc/{}/fd", kms.pid())).unwrap();
    let most = open.count() as u64 + 2;
    let few = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    prlimit(process, Resource::Nofile, few).unwrap();
    let refusal = (0..FEW).find_map(|number| {
        let name = format!("d{number}");
        let (status, answer) = kms.post("/v1/disks", json!({"name": name, "size": MIB}));
        if status != 201 {
            return Some(answer);
        }
        let (status, answer) = kms.post("/v1/attachments", json!({"disk": name, "instance": "vm"}));
        (status != 201).then_some(answer)
    });
    let message = refusal.expect("it has a limit")["message"].to_string();
    assert!(
        message.contains(&format!("all of the {most} open files")) && message.contains("LimitNOFILE="),
        "{message}"
    );
}
