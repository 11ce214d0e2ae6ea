//! K06: a data key in plaintext is in the memory of the serving host, and nowhere else.

use std::fs;

use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{self, Kms};
use sealblk_e2e::process;
use sealblk_e2e::search::{Needle, found_below};

use crate::scene::{attach, mark, with_disk};

fn needles(kms: &Kms) -> Vec<Needle> {
    let keys = DiskKeys::of(&kms.state(), "data");
    vec![
        Needle::key("data key", &keys.data),
        Needle::key("lineage key", &keys.lineage),
        Needle::key("XTS key", &keys.xts[..32]),
        Needle::key("tweak key", &keys.xts[32..]),
    ]
}

#[test]
fn rule_k06_no_file_argument_environment_or_answer_has_a_key() {
    let kms = with_disk();
    mark(&mut attach(&kms, "data"), 7);
    let needles = needles(&kms);
    // The search finds what is there.
    let control = kms.path("control");
    fs::create_dir(&control).unwrap();
    fs::write(control.join("key"), DiskKeys::of(&kms.state(), "data").data).unwrap();
    assert_eq!(found_below(&control, &needles).0.len(), 1);
    let (found, files) = found_below(&kms.state(), &needles);
    assert!(files > 3, "logs, the catalogue, the disk");
    assert_eq!(found, Vec::<String>::new());
    let mut texts = vec![kms.log_text()];
    for pid in [kms.pid(), kms.backend("data").unwrap()] {
        texts.push(process::arguments(pid));
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        texts.push(String::from_utf8_lossy(&environment).into_owned());
    }
    for call in [&["disk", "show", "data"][..], &["key", "list"], &["audit"]] {
        texts.push(kms.ok(call).to_string());
    }
    for needle in &needles {
        assert!(
            texts.iter().all(|text| !needle.is_in(text.as_bytes())),
            "{}",
            needle.name
        );
    }
}

#[test]
fn rule_k06_the_serving_process_leaves_no_core_dump_and_locks_its_memory() {
    let kms = Kms::start();
    let pid = kms::pid(&kms.attached());
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    assert!(!locked.split_whitespace().eq(["VmLck:", "0", "kB"]), "{locked}");
}
