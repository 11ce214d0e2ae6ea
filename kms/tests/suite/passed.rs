//! Files that a caller has opened and passes with a call, instead of naming a path.

use crate::common;

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use crate::common::users::{OPERATOR, OTHER, SECURITY, does, is_root, restart_with_paths};
use crate::common::{Kms, MIB, Value, finish, json, kill, refused};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// A post with open files beside it: status and answer.
fn post_with(kms: &Kms, path: &str, body: &Value, files: &[BorrowedFd<'_>]) -> (u16, Value) {
    let stream = UnixStream::connect(kms.state().join("kms.sock")).unwrap();
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)));
    let bytes = [IoSlice::new(request.as_bytes())];
    rustix::net::sendmsg(&stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn import(name: &str) -> Value {
    json!({"descriptor": true, "format": "raw", "disk": {"name": name, "encrypted": false}})
}

fn export() -> Value {
    json!({"descriptor": true})
}

fn file_of(bytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file
}

fn open_files(kms: &Kms) -> usize {
    let pid = kms.daemon.as_ref().unwrap().id();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    links
        .filter(|entry| {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            link.to_string_lossy().ends_with("(deleted)")
        })
        .count()
}

#[test]
fn a_file_that_is_passed_is_read_or_written_and_closed_at_the_end() {
    let kms = Kms::active();
    let before = open_files(&kms);
    let image = file_of(4096);
    let (status, disk) = post_with(&kms, "/v1/imports", &import("read"), &[image.as_fd()]);
    assert_eq!(status, 202, "{disk}");
    assert_eq!(disk["copy"]["file"], "-");
    let phase = |disk: &str| kms.get(&format!("/v1/disks/{disk}"))["copy"]["phase"].clone();
    kms.until("the import", || phase("read") == "done");
    kms.disk("plain-to-be");
    let plain = json!({"name": "plain", "size": MIB, "store": "raw", "encrypted": false});
    kms.make("/v1/disks", plain);
    let written = file_of(0);
    let (status, answer) = post_with(&kms, "/v1/disks/plain/export", &export(), &[written.as_fd()]);
    assert_eq!(status, 202, "{answer}");
    kms.until("the export", || phase("plain") == "done");
    assert_eq!(written.metadata().unwrap().len(), MIB);
    // An image likewise, both ways.
    let body = json!({"name": "base", "descriptor": true, "format": "raw"});
    let (status, answer) = post_with(&kms, "/v1/imports/images", &body, &[image.as_fd()]);
    assert_eq!(status, 202, "{answer}");
    let state = || kms.get("/v1/images/base")["state"].clone();
    kms.until("the image", || state() == "available");
    let written = file_of(0);
    let (status, answer) = post_with(&kms, "/v1/images/base/export", &export(), &[written.as_fd()]);
    assert_eq!(status, 202, "{answer}");
    let phase = || kms.get("/v1/images/base")["copy"]["phase"].clone();
    kms.until("the image's export", || phase() == "done");
    assert_eq!(written.metadata().unwrap().len(), 4096);
    drop((image, written));
    kms.until("all to be closed", || open_files(&kms) == before);
}

#[test]
fn what_cannot_be_used_is_refused_and_closed() {
    let kms = Kms::active();
    let plain = json!({"name": "plain", "size": MIB, "store": "raw", "encrypted": false});
    kms.make("/v1/disks", plain);
    let before = open_files(&kms);
    kms.refuses("/v1/imports", import("new"), "DescriptorUnusable", None);
    kms.refuses("/v1/disks/plain/export", export(), "DescriptorUnusable", None);
    let file = file_of(4096);
    let mut both = import("new");
    both["file"] = json!(kms.path("file"));
    let (status, answer) = post_with(&kms, "/v1/imports", &both, &[file.as_fd()]);
    refused(status, &answer, "InvalidRequest", None);
    // A file that nobody has asked for is closed, and the call is as without it.
    let (status, answer) = post_with(
        &kms,
        "/v1/disks",
        &json!({"name": "other", "size": MIB}),
        &[file.as_fd()],
    );
    assert_eq!(status, 201, "{answer}");
    // Of several the first counts.
    let others: Vec<_> = (0..7).map(|_| file_of(0)).collect();
    let several: Vec<_> = std::iter::once(&file).chain(&others).map(File::as_fd).collect();
    let (status, answer) = post_with(&kms, "/v1/disks/plain/export", &export(), &several);
    refused(status, &answer, "FileNotEmpty", None);
    let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (status, answer) = post_with(&kms, "/v1/imports", &import("new"), &[reader.as_fd()]);
    refused(status, &answer, "NotAFileOrBlockDevice", None);
    let path = kms.path("file");
    std::fs::write(&path, "").unwrap();
    let append = File::options().read(true).append(true).open(&path).unwrap();
    let write = File::options().write(true).open(&path).unwrap();
    for unfit in [&append, &write] {
        let (status, answer) = post_with(&kms, "/v1/disks/plain/export", &export(), &[unfit.as_fd()]);
        refused(status, &answer, "DescriptorUnusable", None);
    }
    // What a disk has, and what is the KMS's own.
    kms.make(
        "/v1/disks",
        json!({"name": "theirs", "size": MIB, "store": "raw", "path": kms.path("theirs")}),
    );
    let theirs = File::open(kms.path("theirs")).unwrap();
    let (status, answer) = post_with(&kms, "/v1/imports", &import("new"), &[theirs.as_fd()]);
    refused(status, &answer, "FileInUse", None);
    let store = kms.get("/v1/disks/plain")["path"].as_str().unwrap().to_owned();
    for own in [
        kms.state().join("root.key"),
        kms.state().join("catalogue.db"),
        store.into(),
    ] {
        let own = File::open(own).unwrap();
        let (status, answer) = post_with(&kms, "/v1/imports", &import("new"), &[own.as_fd()]);
        refused(status, &answer, "InvalidPath", None);
    }
    drop((file, others));
    kms.until("all to be closed", || open_files(&kms) == before);
    assert_eq!(kms.query("SELECT count(*) FROM copies"), 0);
}

#[test]
fn a_file_outlives_its_process_and_is_lost_with_the_daemon() {
    let mut kms = Kms::active_with_backend("halts");
    let plain = json!({"name": "plain", "size": MIB, "store": "raw", "encrypted": false});
    kms.make("/v1/disks", plain);
    let (image, written) = (file_of(MIB), file_of(0));
    let (status, answer) = post_with(&kms, "/v1/imports", &import("read"), &[image.as_fd()]);
    assert_eq!(status, 202, "{answer}");
    let (status, answer) = post_with(&kms, "/v1/disks/plain/export", &export(), &[written.as_fd()]);
    assert_eq!(status, 202, "{answer}");
    let least = |kms: &Kms| kms.query("SELECT min(position) FROM copies");
    kms.until("a position of both", || least(&kms) == 4096);
    for pid in kms.backends() {
        kill(pid, "KILL");
    }
    kms.until("the next", || least(&kms) == 8192);
    kms.restart();
    for disk in ["read", "plain"] {
        let shown = |kms: &Kms| kms.get(&format!("/v1/disks/{disk}"))["copy"].clone();
        kms.until("the end", || shown(&kms)["phase"] == "failed");
        let trouble = shown(&kms)["trouble"].as_str().unwrap().to_owned();
        assert!(trouble.contains("pass it once more"), "{trouble}");
    }
    for call in ["disk.import", "disk.export"] {
        let lost = ("failed".to_owned(), "DescriptorLost".to_owned());
        assert_eq!(kms.audit(call).last(), Some(&lost));
    }
    // The disk that was not exported is as before, and the other can be given up.
    assert_eq!(kms.get("/v1/disks/plain")["state"], "available");
    kms.delete("/v1/disks/read?retention_days=0");
}

/// `sealctl` of a user, with these for standard input and output.
fn sealctl(kms: &Kms, uid: u32, words: &str, stdin: Stdio, stdout: Stdio) -> Output {
    let program = kms.path("sealctl");
    if !std::fs::exists(&program).unwrap() {
        std::fs::copy(common::sealctl(), &program).unwrap();
    }
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command
        .arg("--socket")
        .arg(kms.state().join("kms.sock"))
        .args(words.split(' '))
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_user_needs_no_path_for_files_of_his_own() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::start();
    restart_with_paths(&mut kms, &[], &[]);
    for uid in [SECURITY, OTHER] {
        does(&kms, uid, "kms activate");
    }
    let home = kms.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(&home, Some(OPERATOR), Some(OPERATOR)).unwrap();
    let mine = format!("{home}/image");
    std::fs::write(&mine, vec![7; 4096]).unwrap();
    chown(&mine, Some(OPERATOR), None).unwrap();
    let run = |words: &str, stdin: Stdio, stdout: Stdio| {
        let output = sealctl(&kms, OPERATOR, words, stdin, stdout);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}: {said}\n{}", kms.log());
        (output.stdout, said)
    };
    let words = format!("disk import named {mine} --encrypted=false --format raw");
    let output = sealctl(&kms, OPERATOR, &words, Stdio::null(), Stdio::piped());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("PathNotAllowed") && said.contains("sealctl disk import named - <FILE"),
        "{said}"
    );
    let words = "disk import read - --encrypted=false --format raw";
    run(words, File::open(&mine).unwrap().into(), Stdio::piped());
    assert_eq!(does(&kms, OPERATOR, "disk show read")["size"], 4096);
    // By a pipe.
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let writer = File::from(writer);
    std::thread::spawn(move || std::io::Write::write_all(&mut &writer, &[7; 8192]).unwrap());
    run(
        "disk import piped - --encrypted=false --format raw",
        reader.into(),
        Stdio::piped(),
    );
    assert_eq!(does(&kms, OPERATOR, "disk show piped")["size"], 8192);
    // A shell opens what it writes to for writing alone.
    let written = format!("{home}/written");
    let shell = File::options()
        .write(true)
        .create_new(true)
        .open(&written)
        .unwrap();
    chown(&written, Some(OPERATOR), None).unwrap();
    let (_, said) = run("disk export read -", Stdio::null(), shell.into());
    assert!(said.contains("is written to -"), "{said}");
    assert_eq!(std::fs::metadata(&written).unwrap().len(), 4096);
    let (bytes, _) = run("disk export piped -", Stdio::null(), Stdio::piped());
    assert_eq!(bytes.len(), 8192, "the data and nothing else");
    let output = sealctl(
        &kms,
        OPERATOR,
        "disk export read - --no-wait",
        Stdio::null(),
        Stdio::piped(),
    );
    assert!(!output.status.success());
    // What only others may open is not opened by the daemon either.
    let secret = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(kms.path("secret"))
        .unwrap();
    secret.write_all_at(&[7; 512], 0).unwrap();
    std::fs::set_permissions(kms.path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut cat = Command::new(kms.path("sealctl"));
    std::os::unix::process::CommandExt::uid(&mut cat, OPERATOR);
    cat.arg("--socket").arg(kms.state().join("kms.sock"));
    cat.args(["disk", "import", "secret", "/proc/self/fd/0"])
        .stdin(secret);
    assert!(!finish(&mut cat).status.success());
}
