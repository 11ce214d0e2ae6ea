//! Snapshots of several disks as of one moment, with real data under a guest that writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sealblk_e2e::eventually;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms};

const BLOCK: usize = 512;

fn attach(kms: &Kms, disk: &str, instance: &str) -> Guest {
    let attachment = kms.ok(&["attach", disk, instance]);
    Guest::connect(kms::path(&attachment, "socket"))
}

fn number(guest: &mut Guest) -> u64 {
    u64::from_le_bytes(guest.read(0, BLOCK)[..8].try_into().unwrap())
}

/// A guest writes a number to one disk, and when that has been answered to the other: as a database does with its log and its data.
#[test]
fn rule_s04_a_write_that_is_in_one_snapshot_of_a_group_has_those_before_it_in_the_others() {
    const GROUPS: u64 = 8;
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["instance", "register", "reader"]);
    let mut guests = ["log", "data"].map(|disk| {
        kms.create(disk, &[]);
        attach(&kms, disk, "vm")
    });
    let (written, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1u64.. {
                let mut block = [0; BLOCK];
                block[..8].copy_from_slice(&number.to_le_bytes());
                guests.iter_mut().for_each(|guest| guest.write(0, &block));
                written.store(number, Ordering::SeqCst);
                if ends.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        for group in 0..GROUPS {
            let before = written.load(Ordering::SeqCst);
            eventually("the guest writes", || {
                (written.load(Ordering::SeqCst) > before).then_some(())
            });
            kms.ok(&["snapshot", "create-group", "vm", &format!("s{group}")]);
        }
        ends.store(true, Ordering::SeqCst);
    });
    for group in 0..GROUPS {
        let [log, data] = ["log", "data"].map(|disk| {
            let clone = format!("{disk}{group}");
            kms.ok(&[
                "disk",
                "create",
                &clone,
                "--snapshot",
                &format!("{disk}/s{group}"),
            ]);
            let number = number(&mut attach(&kms, &clone, "reader"));
            kms.ok(&["detach", &clone, "--force"]);
            number
        });
        assert!(log == data || log == data + 1, "group {group}: {log} and {data}");
        assert!(log > 0);
    }
}
