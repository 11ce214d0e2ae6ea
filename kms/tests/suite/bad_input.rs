//! Bad input, each with its answer; nothing is changed by it.

use std::os::unix::net::UnixListener;

use crate::common::{Kms, MIB, json, refused};

#[test]
fn unknown_objects() {
    let kms = Kms::active();
    kms.instance("vm");
    kms.disk("data");
    for path in [
        "/v1/disks/no",
        "/v1/instances/no",
        "/v1/keys/no",
        "/v1/attachments/no",
    ] {
        let (status, answer) = kms.call("GET", path, None);
        assert_eq!(status, 404);
        refused(status, &answer, "NotFound", None);
    }
    for path in ["/v1/disks/no", "/v1/instances/no"] {
        let (status, answer) = kms.call("DELETE", path, None);
        refused(status, &answer, "NotFound", None);
    }
    kms.refuses(
        "/v1/attachments",
        json!({"disk": "no", "instance": "vm"}),
        "NotFound",
        None,
    );
    kms.refuses(
        "/v1/attachments",
        json!({"disk": "data", "instance": "no"}),
        "NotFound",
        None,
    );
    kms.refuses("/v1/disks/no/detach", json!({}), "NotFound", None);
    kms.refuses("/v1/disks/data/detach", json!({}), "NotAttached", None);
}

#[test]
fn names() {
    let kms = Kms::active();
    kms.disk("data");
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": MIB}),
        "NameTaken",
        None,
    );
    kms.instance("data"); // Unique for each kind.
    kms.refuses("/v1/instances", json!({"name": "data"}), "NameTaken", None);
    for name in ["", "-x", "a/b", "a b", "disk-aaaaaaaaaaaaaaaa"] {
        kms.refuses(
            "/v1/disks",
            json!({"name": name, "size": MIB}),
            "InvalidName",
            None,
        );
        kms.refuses("/v1/instances", json!({"name": name}), "InvalidName", None);
    }
}

#[test]
fn sizes() {
    let kms = Kms::active();
    for size in [0, 1, 511, 513, (64u64 << 40) + 512, u64::MAX] {
        kms.refuses(
            "/v1/disks",
            json!({"name": "data", "size": size}),
            "InvalidSize",
            None,
        );
    }
    kms.make("/v1/disks", json!({"name": "data", "size": 512}));
}

#[test]
fn a_full_disk_at_create_leaves_nothing_and_costs_nothing() {
    let kms = Kms::active();
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": 64u64 << 40, "store": "raw"}),
        "NoSpace",
        None,
    );
    let path = kms.path("big");
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": 64u64 << 40, "path": path, "store": "raw"}),
        "NoSpace",
        None,
    );
    assert!(!std::path::Path::new(&path).exists());
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 0);
    assert_eq!(
        (&kms.get("/v1/disks")["disks"], kms.usage("create")),
        (&json!([]), 0)
    );
    let failed = ("failed".to_owned(), "NoSpace".to_owned());
    assert_eq!(
        kms.audit("disk.create")
            .into_iter()
            .filter(|record| *record == failed)
            .count(),
        2
    );
    kms.disk("data"); // The name is free again.
}

#[test]
fn paths_of_stores() {
    let kms = Kms::active();
    let create = |name: &str, path: &str| json!({"name": name, "size": MIB, "path": path, "store": "raw"});
    let missing = kms.path("missing");
    let disk = kms.make("/v1/disks", create("missing", &missing));
    assert_eq!(
        (&disk["path"], &disk["allocated"]),
        (&json!(missing), &json!(MIB))
    );
    kms.refuses("/v1/disks", create("again", &missing), "FileInUse", None);
    let alias = kms.path("alias");
    std::fs::hard_link(&missing, &alias).unwrap();
    kms.refuses("/v1/disks", create("alias", &alias), "FileInUse", None);
    let foreign = kms.path("foreign");
    std::fs::write(&foreign, "precious").unwrap();
    kms.refuses("/v1/disks", create("foreign", &foreign), "FileNotEmpty", None);
    let empty = kms.path("empty");
    std::fs::write(&empty, "").unwrap();
    let holder = std::fs::File::open(&empty).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    kms.refuses("/v1/disks", create("locked", &empty), "FileInUse", None);
    drop(holder);
    kms.make("/v1/disks", create("empty", &empty));
    let link = kms.path("link");
    std::os::unix::fs::symlink(&foreign, &link).unwrap();
    kms.refuses("/v1/disks", create("link", &link), "NotAFileOrBlockDevice", None);
    kms.refuses(
        "/v1/disks",
        create("null", "/dev/null"),
        "NotAFileOrBlockDevice",
        None,
    );
    kms.refuses("/v1/disks", create("dir", "/"), "InvalidPath", None);
    for store in ["thin", "local", ""] {
        let body = json!({"name": "other", "size": MIB, "store": store});
        kms.refuses("/v1/disks", body, "StoreNotAvailable", None);
    }
    kms.refuses("/v1/disks", create("relative", "file"), "InvalidPath", None);
    kms.refuses(
        "/v1/disks",
        create("nowhere", &kms.path("no/file")),
        "InvalidPath",
        None,
    );
    let inside = kms.state().join("disks/mine");
    kms.refuses(
        "/v1/disks",
        create("inside", inside.to_str().unwrap()),
        "InvalidPath",
        None,
    );
    // Deleting removes the disks' own files and no others.
    for name in ["missing", "empty"] {
        assert_eq!(
            kms.call("DELETE", &format!("/v1/disks/{name}?retention_days=0"), None)
                .0,
            200
        );
    }
    assert!(!std::path::Path::new(&missing).exists());
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "precious");
}

#[test]
fn options_of_an_attachment() {
    let kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    let attach = |field: &str, value: serde_json::Value| {
        let mut body = json!({"disk": "data", "instance": "vm"});
        body[field] = value;
        body
    };
    for queues in [0, 17] {
        kms.refuses(
            "/v1/attachments",
            attach("queues", json!(queues)),
            "InvalidQueues",
            None,
        );
    }
    kms.refuses(
        "/v1/attachments",
        attach("socket_mode", json!("1777")),
        "InvalidSocketMode",
        None,
    );
    kms.refuses(
        "/v1/attachments",
        attach("socket_owner", json!("no such user")),
        "InvalidSocketOwner",
        None,
    );
    for path in [
        "relative".to_owned(),
        kms.path("no/socket"),
        kms.path(&"x".repeat(110)),
    ] {
        kms.refuses(
            "/v1/attachments",
            attach("vhost_socket", json!(path)),
            "InvalidPath",
            None,
        );
    }
    let file = kms.path("file");
    std::fs::write(&file, "precious").unwrap();
    kms.refuses(
        "/v1/attachments",
        attach("vhost_socket", json!(file)),
        "InvalidPath",
        None,
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let socket = kms.path("socket");
    let server = UnixListener::bind(&socket).unwrap();
    kms.refuses(
        "/v1/attachments",
        attach("vhost_socket", json!(socket)),
        "SocketInUse",
        None,
    );
    drop(server);
    assert_eq!((kms.usage("attach"), kms.backends().len()), (0, 0));
    // Stale: it is replaced.
    let attachment = kms.make("/v1/attachments", attach("vhost_socket", json!(socket)));
    assert_eq!(attachment["socket"], json!(socket));
    kms.disk("other");
    let mut body = attach("vhost_socket", json!(socket));
    body["disk"] = json!("other");
    kms.refuses("/v1/attachments", body, "SocketInUse", None);
}

#[test]
fn instances_with_disks_stay() {
    let kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    kms.instance("other");
    kms.attach("data", "vm");
    let (status, answer) = kms.call("DELETE", "/v1/instances/vm", None);
    refused(status, &answer, "InstanceInUse", None);
    kms.refuses(
        "/v1/disks/data/detach",
        json!({"instance": "other"}),
        "NotAttached",
        None,
    );
    kms.make("/v1/disks/data/detach", json!({"instance": "vm"}));
    assert_eq!(kms.call("DELETE", "/v1/instances/vm", None).0, 200);
}

#[test]
fn garbage_and_oversized_requests() {
    let kms = Kms::active();
    for body in [
        "{",
        "[]",
        "\"x\"",
        "nul",
        "{}",
        "{\"name\":\"a\"}",
        "{\"name\":\"a\",\"size\":-1}",
        "{\"name\":\"a\",\"size\":1024,\"color\":1}",
        "{\"name\":\"a\",\"size\":1024} x",
        "\u{0}",
    ] {
        let (status, answer) = kms.call("POST", "/v1/disks", Some(body.as_bytes()));
        assert_eq!(status, 400, "{body}");
        refused(status, &answer, "InvalidRequest", None);
    }
    let (status, answer) = kms.call("POST", "/v1/disks", Some(b"\xff\xfe"));
    refused(status, &answer, "InvalidRequest", None);
    let large = vec![b' '; 64 * 1024 + 1];
    let (status, answer) = kms.call("POST", "/v1/disks", Some(&large));
    assert_eq!(status, 413);
    refused(status, &answer, "BodyTooLarge", None);
    let (status, answer) = kms.send(
        b"POST /v1/disks HTTP/1.1\r\nHost: k\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(status, 415);
    refused(status, &answer, "UnsupportedMediaType", None);
    let head = format!(
        "GET /v1/kms HTTP/1.1\r\nHost: k\r\nX: {}\r\n\r\n",
        "x".repeat(32 * 1024)
    );
    assert_eq!(kms.send(head.as_bytes()).0, 431);
    assert_eq!(kms.send(b"garbage\r\n\r\n").0, 400);
    for path in ["/", "/v1", "/v1/kms/x", "/v2/kms"] {
        let (status, answer) = kms.call("GET", path, None);
        assert_eq!(status, 404);
        refused(status, &answer, "NoSuchRoute", None);
    }
    for query in ["limit=0", "limit=1001", "limit=x", "color=red"] {
        let (status, answer) = kms.call("GET", &format!("/v1/disks?{query}"), None);
        refused(status, &answer, "InvalidRequest", None);
    }
    kms.disk("data"); // It still works.
}

#[test]
fn lists_page() {
    let kms = Kms::active();
    for number in 0..5 {
        kms.instance(&format!("vm{number}"));
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = kms.get(&format!("/v1/instances?limit=2&after={after}"));
        let rows = page["instances"].as_array().unwrap();
        assert!(rows.len() <= 2);
        seen.extend(rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["vm0", "vm1", "vm2", "vm3", "vm4"]);
}

#[test]
fn callers_without_an_account_are_refused_even_root() {
    let mut kms = Kms::active();
    kms.kill();
    kms.tamper("PRAGMA foreign_keys = OFF; UPDATE principals SET uid = uid + 1");
    kms.serve();
    let (status, answer) = kms.call("GET", "/v1/kms", None);
    assert_eq!(status, 403);
    refused(status, &answer, "NotAuthorized", None);
}
