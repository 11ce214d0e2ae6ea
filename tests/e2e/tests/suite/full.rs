//! A file system that a guest fills to the last byte, with the catalogue on it: others' processes come again, and by the API room
//! is made. As root, with a tmpfs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::FallocateFlags;
use sealblk_e2e::api::call;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::{eventually, process};
use serde_json::json;

const SIZE: &str = "size=24m";
const CHUNK: usize = 64 << 10;

/// Gone with the test.
struct Medium(PathBuf);

impl Medium {
    /// None if it cannot be mounted: only root can.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at);
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED: a tmpfs cannot be mounted");
        }
        mounted.then(|| Medium(at.to_owned()))
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes every byte, also whatever becomes free, until it is ended. Then its file goes.
struct Greedy {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Greedy {
    fn begin(file: PathBuf) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::create(&file).expect("its file");
            let mut length = 0;
            while !ended.load(Ordering::Relaxed) {
                let step = [1 << 20, 64 << 10, 4096].into_iter().find(|step| {
                    rustix::fs::fallocate(&file, FallocateFlags::empty(), length, *step).is_ok()
                });
                match step {
                    Some(step) => length += step,
                    None => std::thread::sleep(std::time::Duration::from_micros(200)),
                }
            }
            file.set_len(0).expect("its room comes back");
        });
        Greedy {
            end,
            thread: Some(thread),
        }
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes until there is no room.
fn fill(guest: &mut Guest) {
    let chunk = [7; CHUNK];
    for number in 0.. {
        guest.begin_write(number * (CHUNK as u64 / 512), &chunk);
        if guest.finish() != 0 {
            return;
        }
    }
}

#[test]
fn a_guest_that_fills_the_file_system_keeps_nothing_from_being_restarted_or_given_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(_medium) = Medium::mount(directory.path()) else {
        return;
    };
    let kms = Kms::start_in(directory.path());
    let attachment = kms.attached();
    for instance in ["one", "two", "three"] {
        kms.ok(&["instance", "register", instance]);
    }
    kms.ok(&["disk", "create", "greedy", "--size", "1GiB"]);
    let greedy = kms.ok(&["attach", "greedy", "one"]);
    for disk in ["doomed", "emptied", "shown"] {
        kms.create(disk, &[]);
    }
    kms.ok(&["snapshot", "create", "emptied", "first"]);
    kms.ok(&["snapshot", "create", "emptied", "second"]);
    kms.create("third", &[]);
    let third = kms.ok(&["attach", "third", "three"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &[1; 4096]);
    guest.flush();

    let mut filling = Guest::connect(kms::path(&greedy, "socket"));
    fill(&mut filling);
    let rest = Greedy::begin(directory.path().join("rest"));
    fill(&mut filling);

    // The processes of others are killed, and come again.
    let mut pid = kms::pid(&attachment);
    for _ in 0..8 {
        drop(guest);
        process::kill(pid);
        pid = eventually("another process serves", || {
            kms.backend("data").filter(|new| *new != pid)
        });
        guest = Guest::connect(kms::path(&attachment, "socket"));
        assert_eq!(guest.read(0, 4096), [1; 4096]);
        guest.write(0, &[1; 4096]);
        guest.flush();
    }
    // Room is made by the API.
    kms.ok(&["snapshot", "delete", "emptied/first"]);
    kms.ok(&["disk", "reinit", "emptied", "--force"]);
    kms.ok(&["disk", "delete", "doomed", "--now"]);
    assert_eq!(
        text(&kms.ok(&["detach", "third", "--force"]), "state"),
        "available"
    );
    assert!(!process::is_running(kms::pid(&third)));
    drop(filling);
    kms.ok(&["detach", "greedy", "--force"]);
    kms.ok(&["disk", "delete", "greedy", "--now"]);
    drop(rest);

    // And everything is as it was.
    kms.create("later", &[]);
    kms.ok(&["attach", "later", "two"]);
    kms.ok(&["disk", "check", "emptied"]);
    kms.ok(&["audit", "verify"]);
    eventually("the reserve is whole again", || {
        let status = kms.ok(&["kms", "status"]);
        (!status["conditions"].to_string().contains("ReserveUsed")).then_some(())
    });
}

#[test]
fn what_needs_room_is_refused_before_the_reserve_is_used_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(_medium) = Medium::mount(directory.path()) else {
        return;
    };
    let kms = Kms::start_in(directory.path());
    let attachment = kms.attached();
    let binned = text(&kms.create("binned", &[]), "id").to_owned();
    kms.ok(&["disk", "delete", "binned"]);
    let rest = Greedy::begin(directory.path().join("rest"));
    // Each takes a page.
    let boot_disk = format!("/{}", "b".repeat(4000));
    let refused = (0..1000).find_map(|number| {
        let body = json!({"name": format!("vm-{number}"), "boot_disk": boot_disk});
        let (status, answer) = call(&kms.socket(), "POST", "/v1/instances", Some(body));
        (status != 200 && status != 201).then_some((status, answer))
    });
    let (status, answer) = refused.expect("it is not registered without end");
    assert_eq!((status, &answer["code"]), (507, &json!("NoSpace")), "{answer}");
    let pid = kms::pid(&attachment);
    process::kill(pid);
    eventually("another process serves", || {
        kms.backend("data").filter(|new| *new != pid)
    });
    kms.ok(&["detach", "data", "--force"]);
    // The bin gives no room back until it is emptied.
    let advice = kms.refused(&["disk", "delete", "data"], "NoSpace", None);
    assert!(advice.contains("--now"), "{advice}");
    kms.ok(&["disk", "delete", &binned, "--now"]);
    kms.ok(&["disk", "delete", "data", "--now"]);
    drop(rest);
    kms.create("later", &[]);
    kms.ok(&["audit", "verify"]);
}

/// Takes every byte that there is.
fn take_all(file: &Path) {
    let file = std::fs::File::create(file).expect("its file");
    let mut length = 0;
    for step in [1 << 20, 64 << 10, 4096] {
        while rustix::fs::fallocate(&file, FallocateFlags::empty(), length, step).is_ok() {
            length += step;
        }
    }
}

fn end_in_order(kms: &mut Kms) {
    assert_eq!(kms.stop(), Some(0));
}

/// SQLite makes the shared memory of the log anew for whoever opens the catalogue first, and removes the log with whoever closes it
/// last, as the look at its schema did.
#[test]
fn a_daemon_starts_again_on_a_full_file_system_and_room_is_made_by_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(_medium) = Medium::mount(directory.path()) else {
        return;
    };
    let rest = directory.path().join("rest");
    let mut kms = Kms::start_in(directory.path());
    kms.create("doomed", &[]);
    let mut attachment = kms.attached();
    for _ in 0..2 {
        take_all(&rest);
        for end in [Kms::kill, end_in_order, end_in_order] {
            end(&mut kms);
            // What has become free by that.
            take_all(&directory.path().join("more"));
            kms.serve();
        }
        let pid = kms::pid(&attachment);
        process::kill(pid);
        eventually("another process serves", || {
            kms.backend("data").filter(|new| *new != pid)
        });
        kms.ok(&["disk", "delete", "doomed", "--now"]);
        kms.ok(&["detach", "data", "--force"]);
        // There is room again, also for the next time.
        for file in ["rest", "more"] {
            std::fs::remove_file(directory.path().join(file)).expect("it is removed");
        }
        kms.create("doomed", &[]);
        attachment = kms.ok(&["attach", "data", "vm"]);
    }
    kms.ok(&["audit", "verify"]);
}
