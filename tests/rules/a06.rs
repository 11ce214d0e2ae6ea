//! A06: what is attached goes on when its key becomes unusable, over restarts too, and says so.

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms;
use sealblk_e2e::{eventually, process};

use crate::scene::{audited, mark, marked, with_customer_key};

#[test]
fn rule_a06_a_guest_goes_on_under_a_disabled_key() {
    let mut kms = with_customer_key();
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let socket = kms::path(&attachment, "socket");
    let mut guest = Guest::connect(socket);
    mark(&mut guest, 6);
    kms.ok(&["key", "disable", "mine"]);
    mark(&mut guest, 7);
    assert!(kms.disk("data")["warnings"].to_string().contains("A06"));
    assert!(kms.ok(&["kms", "status"])["warnings"].to_string().contains("A06"));
    drop(guest);
    // A restart of the process is audited, and no new attach.
    let uses = audited(&kms, "key.use", "allowed");
    process::kill(kms::pid(&attachment));
    let pid = eventually("a new process", || kms.backend("data"));
    assert_eq!(
        (audited(&kms, "key.use", "allowed"), kms.metered("attach")),
        (uses + 1, 1)
    );
    kms.kill();
    process::kill(pid);
    kms.serve();
    eventually("a new process", || kms.backend("data").filter(|new| *new != pid));
    let mut guest = eventually("its socket", || socket.exists().then(|| Guest::connect(socket)));
    assert_eq!((marked(&mut guest), kms.metered("attach")), (7, 1));
    // What is not attached is another matter.
    kms.create("idle", &[]);
    let create = ["disk", "create", "new", "--size", "1MiB", "--key", "mine"];
    kms.refused(&create, "KeyNotUsable", Some("A05"));
}
