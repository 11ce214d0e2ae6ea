//! Which paths on the host callers may name, and what is done there on their behalf.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::common::mounted::Mounted;
use crate::common::users::{OPERATOR, OTHER, SECURITY, does, is_root, may_not, restart_with_paths};
use crate::common::{Kms, MIB, json};

/// A KMS whose operators may name `srv/acme` and names that begin with `srv/dev-`.
struct World {
    kms: Kms,
}

impl World {
    /// None where the tests are not run by root.
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mut kms = Kms::start();
        for directory in ["srv", "srv/acme", "srv/other", "private"] {
            std::fs::create_dir(kms.path(directory)).unwrap();
        }
        for (directory, mode) in [("srv", 0o755), ("srv/acme", 0o755), ("private", 0o700)] {
            set_mode(&kms.path(directory), mode);
        }
        let (acme, devices, other) = (kms.path("srv/acme"), kms.path("srv/dev-"), kms.path("srv/other"));
        restart_with_paths(&mut kms, &[&acme, &devices], &[&other]);
        does(&kms, SECURITY, "kms activate");
        does(&kms, OTHER, "kms activate");
        does(
            &kms,
            OPERATOR,
            "disk create plain --size 1MiB --encrypted=false --store raw",
        );
        does(&kms, OPERATOR, "instance register vm");
        Some(World { kms })
    }

    fn path(&self, name: &str) -> String {
        self.kms.path(name)
    }

    fn state(&self, name: &str) -> String {
        let path = self.kms.state().canonicalize().unwrap().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Each way to name a path.
    fn calls(&self, path: &str) -> [String; 8] {
        [
            format!("disk create new --size 1MiB --encrypted=false --path {path}"),
            format!("disk import new {path} --encrypted=false --format raw"),
            format!("disk export plain {path}"),
            format!("image import new {path} --format raw"),
            format!("backup create plain new --path {path}"),
            format!("attach plain vm --vhost-socket {path}"),
            format!("instance register new --vm-socket {path}"),
            format!("instance set vm --vm-socket {path}"),
        ]
    }
}

fn set_mode(path: &str, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_account_names_its_paths_and_is_told_nothing_of_others() {
    let Some(world) = World::new() else { return };
    let kms = &world.kms;
    std::fs::write(world.path("private/there"), vec![7; 4096]).unwrap();
    std::fs::write(world.path("private/empty"), "").unwrap();
    let _listener = UnixListener::bind(world.path("private/socket")).unwrap();
    for index in 0..8 {
        let refusal = |name: &str| {
            let path = world.path(name);
            let words = &world.calls(&path)[index];
            may_not(kms, OPERATOR, words, "PathNotAllowed", None).replace(&path, "PATH")
        };
        let first = refusal("private/there");
        assert!(
            first.contains("accounts file") && first.contains(&world.path("srv/acme")),
            "{first}"
        );
        for name in [
            "private/nothing",
            "private/empty",
            "private/socket",
            "nowhere/at/all",
            "srv/other/file",
            "srv/acme-evil",
        ] {
            assert_eq!(refusal(name), first, "{name}");
        }
        // Where dots lead counts.
        let dotted = format!("{}/../../private/there", world.path("srv/acme"));
        let words = &world.calls(&dotted)[index];
        may_not(kms, OPERATOR, words, "PathNotAllowed", None);
    }
    assert_eq!(std::fs::metadata(world.path("private/empty")).unwrap().len(), 0);
    // Without any, the advice is another.
    let mut kms = world.kms;
    restart_with_paths(&mut kms, &[], &[]);
    let message = may_not(
        &kms,
        OPERATOR,
        &format!("disk export plain {}", kms.path("srv/acme/x")),
        "PathNotAllowed",
        None,
    );
    assert!(message.contains("leave the path out"), "{message}");
}

#[test]
fn below_its_paths_an_account_does_as_it_likes() {
    let Some(world) = World::new() else { return };
    let kms = &world.kms;
    let acme = world.path("srv/acme");
    does(
        kms,
        OPERATOR,
        &format!("disk create store --size 1MiB --encrypted=false --store raw --path {acme}/store"),
    );
    let store = std::fs::metadata(format!("{acme}/store")).unwrap();
    assert_eq!((store.uid(), store.mode() & 0o777), (0, 0o600), "the daemon's");
    does(
        kms,
        OPERATOR,
        &format!(
            "disk create named --size 1MiB --encrypted=false --store raw --path {}",
            world.path("srv/dev-1")
        ),
    );
    let socket = format!("{acme}/vhost.sock");
    does(
        kms,
        OPERATOR,
        &format!("attach store vm --vhost-socket {socket} --socket-owner {OPERATOR}"),
    );
    assert_eq!(std::fs::metadata(&socket).unwrap().uid(), OPERATOR);
    does(kms, OPERATOR, "detach store");
    assert!(!Path::new(&socket).exists());
    std::fs::write(format!("{acme}/image"), vec![7; 4096]).unwrap();
    does(
        kms,
        OPERATOR,
        &format!("disk import read {acme}/image --encrypted=false"),
    );
    does(kms, OPERATOR, &format!("disk export plain {acme}/written"));
    let written = std::fs::metadata(format!("{acme}/written")).unwrap();
    assert_eq!(
        (written.uid(), written.mode() & 0o777, written.len()),
        (OPERATOR, 0o600, MIB),
        "the caller's"
    );
    does(
        kms,
        OPERATOR,
        &format!("instance set vm --vm-socket {acme}/qmp.sock"),
    );
    // What exists stays when the paths are taken away; only naming needs them.
    let mut kms = world.kms;
    restart_with_paths(&mut kms, &[], &[]);
    does(&kms, OPERATOR, "attach store vm");
    does(&kms, OPERATOR, "detach store");
    does(&kms, OPERATOR, "instance set vm --name machine");
    does(&kms, OPERATOR, "disk delete store --now");
}

#[test]
fn links_lead_nowhere_and_files_of_others_are_not_taken() {
    let Some(world) = World::new() else { return };
    let kms = &world.kms;
    let acme = world.path("srv/acme");
    std::fs::write(world.path("private/secret"), vec![7; 4096]).unwrap();
    // By a link in a directory, or as the last part; by a further name of a file.
    symlink(world.path("private"), format!("{acme}/link")).unwrap();
    symlink(world.path("private/secret"), format!("{acme}/secret")).unwrap();
    std::fs::hard_link(world.path("private/secret"), format!("{acme}/further")).unwrap();
    let import = |name: &str| format!("disk import new {acme}/{name} --encrypted=false --format raw");
    for name in ["link/secret", "link/nothing"] {
        let message = may_not(kms, OPERATOR, &import(name), "InvalidPath", None);
        assert!(message.contains("symbolic link"), "{message}");
    }
    may_not(kms, OPERATOR, &import("secret"), "NotAFileOrBlockDevice", None);
    // Only root's own links lead to devices, where nobody else writes; this one is the operator's.
    if let Some(device) = std::fs::read_dir("/sys/block")
        .ok()
        .and_then(|mut devices| devices.next()?.ok())
    {
        symlink(
            Path::new("/dev").join(device.file_name()),
            format!("{acme}/device"),
        )
        .unwrap();
        std::os::unix::fs::lchown(format!("{acme}/device"), Some(OPERATOR), None).unwrap();
        may_not(kms, OPERATOR, &import("device"), "NotAFileOrBlockDevice", None);
    }
    let message = may_not(kms, OPERATOR, &import("further"), "PathNotAllowed", None);
    assert!(message.contains("hard links"), "{message}");
    for words in [
        "disk export plain FILE",
        "attach plain vm --vhost-socket FILE",
        "disk create new --size 1MiB --path FILE",
    ] {
        may_not(
            kms,
            OPERATOR,
            &words.replace("FILE", &format!("{acme}/link/new")),
            "InvalidPath",
            None,
        );
    }
    assert!(!Path::new(&world.path("private/new")).exists());
    // An empty file is taken from its own user alone.
    for (name, uid) in [("roots", 0), ("theirs", OTHER), ("mine", OPERATOR)] {
        std::fs::write(format!("{acme}/{name}"), "").unwrap();
        chown(format!("{acme}/{name}"), Some(uid), Some(uid)).unwrap();
    }
    for name in ["roots", "theirs"] {
        // It is found when the file is opened to be written.
        let (file, new) = (
            format!("{acme}/{name}"),
            format!("disk create new --size 1MiB --store raw --path {acme}/{name}"),
        );
        may_not(kms, OPERATOR, &new, "PathNotAllowed", None);
        may_not(
            kms,
            OPERATOR,
            &format!("disk export plain {file}"),
            "PathNotAllowed",
            None,
        );
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 0);
    }
    does(kms, OPERATOR, &format!("disk export plain {acme}/mine"));
    assert_eq!(std::fs::metadata(format!("{acme}/mine")).unwrap().len(), MIB);
    // What a daemon that was killed has made, and has not noted, is taken when it is named again.
    for name in ["left-store", "left-export", "linked"] {
        std::fs::write(format!("{acme}/{name}"), "").unwrap();
        set_mode(&format!("{acme}/{name}"), 0o600);
    }
    std::fs::hard_link(format!("{acme}/linked"), world.path("srv/linked")).unwrap();
    let linked = format!("disk export plain {acme}/linked");
    may_not(kms, OPERATOR, &linked, "PathNotAllowed", None);
    let store =
        format!("disk create left --size 1MiB --encrypted=false --store raw --path {acme}/left-store");
    does(kms, OPERATOR, &store);
    does(kms, OPERATOR, "disk delete left --now");
    assert!(!Path::new(&format!("{acme}/left-store")).exists());
    does(kms, OPERATOR, &format!("disk export plain {acme}/left-export"));
    let written = std::fs::metadata(format!("{acme}/left-export")).unwrap();
    assert_eq!((written.uid(), written.len()), (OPERATOR, MIB));
    // A stale socket is replaced for its own user alone.
    drop(UnixListener::bind(format!("{acme}/stale")).unwrap());
    let attach = format!("attach plain vm --vhost-socket {acme}/stale");
    may_not(kms, OPERATOR, &attach, "SocketInUse", None);
    chown(format!("{acme}/stale"), Some(OPERATOR), None).unwrap();
    does(kms, OPERATOR, &attach);
}

#[test]
fn the_state_directory_is_nobody_s_to_name_by_whatever_way() {
    let Some(mut world) = World::new() else { return };
    // As its administrator may do.
    let real = world.path("disks-elsewhere");
    world.kms.stop();
    std::fs::rename(world.state("disks"), &real).unwrap();
    symlink(&real, world.state("disks")).unwrap();
    // An account that may name everything.
    restart_with_paths(&mut world.kms, &["/"], &["/"]);
    let kms = &world.kms;
    let plain = does(kms, OPERATOR, "disk show plain");
    let store = plain["id"].as_str().unwrap().to_owned();
    does(kms, OTHER, "instance register theirs");
    does(kms, OTHER, "disk create attached --size 1MiB --encrypted=false");
    let attached = does(kms, OTHER, "attach attached theirs");
    let run = Path::new(attached["socket"].as_str().unwrap())
        .parent()
        .unwrap()
        .to_owned();
    std::fs::hard_link(world.state("root.key"), world.path("srv/key")).unwrap();
    let mut paths = vec![
        world.state("catalogue.db-journal"),
        world.state("root.key.next"),
        world.state("root.key"),
        world.state("backups"),
        world.state("disks/mine"),
        world.state("kms2.sock"),
        run.join("new.sock").to_str().unwrap().to_owned(),
        format!("{real}/{store}"),
        format!("{real}/mine"),
        world.path("srv/../state/root.key"),
        world.path("accounts.json"),
    ];
    for name in ["mounted-state", "mounted-run"] {
        std::fs::create_dir(world.path(name)).unwrap();
    }
    let mounts = [
        Mounted::new(&world.kms.state(), world.path("mounted-state").into()),
        Mounted::new(&run, world.path("mounted-run").into()),
    ];
    if mounts.iter().all(Option::is_some) {
        paths.push(world.path("mounted-state/root.key.next"));
        paths.push(world.path("mounted-state/run/new"));
        paths.push(world.path("mounted-run/vhost.sock"));
    }
    let owner = |route: &str, body| kms.post(route, body);
    owner("/v1/kms/activate", json!({}));
    owner(
        "/v1/disks",
        json!({"name": "own", "size": MIB, "encrypted": false}),
    );
    owner("/v1/instances", json!({"name": "own"}));
    for path in &paths {
        for words in [
            format!("attach plain vm --vhost-socket {path}"),
            format!("disk create new --size 1MiB --encrypted=false --path {path}"),
            format!("disk export plain {path}"),
            format!("disk import new {path} --encrypted=false --format raw"),
        ] {
            may_not(kms, OPERATOR, &words, "InvalidPath", None);
        }
        for (route, body) in [
            (
                "/v1/attachments",
                json!({"disk": "own", "instance": "own", "vhost_socket": path}),
            ),
            ("/v1/disks/own/export", json!({"file": path})),
            (
                "/v1/imports",
                json!({"file": path, "format": "raw", "disk": {"name": "new", "encrypted": false}}),
            ),
        ] {
            kms.refuses(route, body, "InvalidPath", None);
        }
    }
    // A further name of a key file is found when it is read.
    let key = world.path("srv/key");
    kms.refuses(
        "/v1/imports",
        json!({"file": key, "format": "raw", "disk": {"name": "new", "encrypted": false}}),
        "InvalidPath",
        None,
    );
    may_not(
        kms,
        OPERATOR,
        &format!("disk import new {key} --encrypted=false --format raw"),
        "InvalidPath",
        None,
    );
    let socket = attached["socket"].as_str().unwrap();
    may_not(
        kms,
        OPERATOR,
        &format!("attach plain vm --vhost-socket {socket}"),
        "SocketInUse",
        None,
    );
    assert_eq!(does(kms, OTHER, "disk show attached")["state"], "in-use");
}

#[test]
fn credentials_and_the_kernel_s_files_are_nobody_s_to_name() {
    let Some(world) = World::new() else { return };
    let mut kms = world.kms;
    restart_with_paths(&mut kms, &["/"], &[]);
    let credentials = format!("/run/credentials/sealblk-test-{}", std::process::id());
    std::fs::create_dir_all(&credentials).unwrap();
    std::fs::write(format!("{credentials}/sealblk-root-key"), "7".repeat(64)).unwrap();
    symlink(&credentials, kms.path("credentials")).unwrap();
    let paths = [
        format!("{credentials}/sealblk-root-key"),
        "/proc/self/environ".to_owned(),
        "/proc/self/root/etc/shadow".to_owned(),
        "/proc/self/cwd/file".to_owned(),
        "/sys/kernel/notes".to_owned(),
    ];
    for path in &paths {
        let body = json!({"file": path, "format": "raw", "disk": {"name": "new", "encrypted": false}});
        kms.refuses("/v1/imports", body, "InvalidPath", None);
        may_not(
            &kms,
            OPERATOR,
            &format!("disk import new {path} --encrypted=false --format raw"),
            "InvalidPath",
            None,
        );
    }
    // The owner's links are followed, and lead there.
    let file = kms.path("credentials/sealblk-root-key");
    kms.refuses(
        "/v1/imports",
        json!({"file": file, "format": "raw", "disk": {"name": "new"}}),
        "InvalidPath",
        None,
    );
    std::fs::remove_dir_all(&credentials).unwrap();
}

#[test]
fn a_virtual_machine_is_asked_with_the_caller_s_rights() {
    let Some(world) = World::new() else { return };
    let kms = &world.kms;
    let acme = world.path("srv/acme");
    std::fs::create_dir(format!("{acme}/private")).unwrap();
    set_mode(&format!("{acme}/private"), 0o700);
    does(kms, OPERATOR, "disk create sealed --size 1MiB --store raw");
    let mut listeners = Vec::new();
    for (name, mode) in [("private/there", 0o777), ("roots", 0o600)] {
        listeners.push(UnixListener::bind(format!("{acme}/{name}")).unwrap());
        set_mode(&format!("{acme}/{name}"), mode);
    }
    let refusal = |name: &str| {
        let path = format!("{acme}/{name}");
        does(kms, OPERATOR, &format!("instance set vm --vm-socket {path}"));
        may_not(kms, OPERATOR, "attach sealed vm", "MachineNotAsked", Some("A03")).replace(&path, "PATH")
    };
    let there = refusal("private/there");
    assert!(there.contains("Permission denied"), "{there}");
    assert_eq!(
        refusal("private/nothing"),
        there,
        "whether something is there is not told"
    );
    refusal("roots");
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody has connected");
    }
    // Who answers sees the caller.
    let listener = UnixListener::bind(format!("{acme}/open")).unwrap();
    set_mode(&format!("{acme}/open"), 0o777);
    let peer = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        rustix::net::sockopt::socket_peercred(&stream)
            .unwrap()
            .uid
            .as_raw()
    });
    refusal("open");
    assert_eq!(peer.join().unwrap(), OPERATOR);
}
