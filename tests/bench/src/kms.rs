//! What the KMS does in a second, and how long its answers take with a full catalogue.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms::Kms;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::load::LoadError;

#[derive(Args)]
pub(crate) struct Options {
    /// Directory for the state.
    #[arg(long)]
    directory: PathBuf,
    /// Clients at once.
    #[arg(long, default_value_t = 16)]
    clients: u16,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Disks of the full catalogue.
    #[arg(long, default_value_t = 100_000)]
    disks: u64,
    /// Audit records of the full catalogue.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
}

/// Measures, and prints.
pub(crate) fn run(options: &Options) -> Result<(), LoadError> {
    let syncs = syncs_a_second(&options.directory)?;
    println!("the directory's own limit: {syncs:.0} synchronised 4 KiB writes a second, one after another");
    let mut kms = Kms::start_in(&options.directory);
    throughput(&kms, options);
    kms.stop();
    fill(&kms.state(), options);
    let start = Instant::now();
    kms.serve();
    println!(
        "start with {} disks and {} audit records, whose chain is verified: {:.2} s",
        options.disks,
        options.records,
        start.elapsed().as_secs_f64()
    );
    answers(&kms);
    Ok(())
}

/// How often the medium can be waited for, as each commit of the catalogue does.
fn syncs_a_second(directory: &Path) -> io::Result<f64> {
    let path = directory.join("syncs");
    let file = File::create(&path)?;
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(2) {
        file.write_all_at(&[0x5a; 4096], 4096 * (count % 256))?;
        file.sync_data()?;
        count += 1;
    }
    std::fs::remove_file(path)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Each client attaches and detaches an encrypted disk of its own, whose process another supervisor would start.
fn throughput(kms: &Kms, options: &Options) {
    kms.ok(&["instance", "register", "vm"]);
    for client in 0..options.clients {
        kms.create(&format!("client{client}"), &["--store", "raw"]);
    }
    let calls = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..options.clients {
            let (calls, socket) = (&calls, kms.socket());
            scope.spawn(move || {
                let mut connection = Connection::new(&socket);
                let attach = json!({"disk": format!("client{client}"), "instance": "vm", "start": false});
                let detach = format!("/v1/disks/client{client}/detach");
                while start.elapsed().as_secs_f64() < options.seconds {
                    connection.call("POST", "/v1/attachments", &attach);
                    connection.call("POST", &detach, &json!({}));
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
    });
    let calls = calls.into_inner() as f64 / start.elapsed().as_secs_f64();
    println!(
        "{} clients: {calls:.0} attaches and detaches a second",
        options.clients
    );
}

/// Puts disks and audit records into a catalogue that nobody serves.
fn fill(state: &Path, options: &Options) {
    let mut catalogue = Catalogue::open(state);
    let series = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) ",
        options.disks
    );
    catalogue.execute("BEGIN");
    catalogue.execute(&format!(
        "INSERT INTO volumes (id, account, encrypted, size, store, zone, created)
         {series} SELECT printf('disk-f%015d', i), 'default', 0, 1048576, 'raw', 'test-1a', '2026-01-01T00:00:00.000Z' FROM n"
    ));
    catalogue.execute(&format!(
        "INSERT INTO disks (id, account, name, state, created)
         {series} SELECT printf('disk-f%015d', i), 'default', printf('filled%d', i), 'available', '2026-01-01T00:00:00.000Z'
         FROM n"
    ));
    fill_audit(&mut catalogue, options.records);
    catalogue.execute("COMMIT");
}

/// Continues the chain of the audit log, as its format is documented.
fn fill_audit(catalogue: &mut Catalogue, records: u64) {
    use sqlx::Row;
    let last = catalogue.row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1");
    let (mut seq, mut previous) = (last.get::<i64, _>("seq"), last.get::<Vec<u8>, _>("hash"));
    let texts = [
        "2026-01-01T00:00:00.000Z",
        "default",
        "0",
        "1",
        "req-filled",
        "disk.create",
        "filled",
        "allowed",
    ];
    while seq.unsigned_abs() < records {
        let mut rows = Vec::new();
        for _ in 0..1000 {
            seq += 1;
            let mut hash = Sha256::new();
            hash.update(&previous);
            let number = seq.to_string();
            for text in [number.as_str()].into_iter().chain(texts).chain(["", ""]) {
                hash.update((text.len() as u32).to_be_bytes());
                hash.update(text.as_bytes());
            }
            previous = hash.finalize().to_vec();
            let [time, account, uid, pid, request, call, object, decision] = texts;
            rows.push(format!(
                "({seq}, '{time}', '{account}', {uid}, {pid}, '{request}', '{call}', '{object}', '{decision}', NULL, NULL, x'{}')",
                hex::encode(&previous)
            ));
        }
        catalogue.execute(&format!(
            "INSERT INTO audit (seq, time, account, uid, pid, request, call, object, decision, rule, code, hash) VALUES {}",
            rows.join(",")
        ));
    }
}

/// Times of single calls, one after another.
fn answers(kms: &Kms) {
    let mut connection = Connection::new(&kms.socket());
    let places = (0..30).map(|round| format!("disk-f{:015}", round * 3000));
    let pages: Vec<_> = places
        .map(|after| format!("/v1/disks?limit=100&after={after}"))
        .collect();
    let audit: Vec<_> = (0..30)
        .map(|round| format!("/v1/audit?limit=100&after={}", round * 30_000))
        .collect();
    for (what, paths) in [
        ("a page of 100 disks", pages),
        ("a page of 100 audit records", audit),
    ] {
        let times = paths
            .iter()
            .map(|path| timed(|| drop(connection.call("GET", path, &json!({})))));
        report(what, times.collect());
    }
    let (mut attaches, mut detaches) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let attach = json!({"disk": "client0", "instance": "vm", "start": false});
        attaches.push(timed(|| {
            drop(connection.call("POST", "/v1/attachments", &attach))
        }));
        let detach = "/v1/disks/client0/detach";
        detaches.push(timed(|| drop(connection.call("POST", detach, &json!({})))));
    }
    report("an attach", attaches);
    report("a detach", detaches);
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn report(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {middle:.1} ms, at most {longest:.1} ms");
}

/// A connection to the API that is kept.
struct Connection(UnixStream);

impl Connection {
    fn new(socket: &Path) -> Self {
        Connection(UnixStream::connect(socket).expect("the daemon listens"))
    }

    /// Makes a call that must succeed.
    fn call(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).expect("the daemon reads");
        let (head, mut content) = self.head();
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")?
                    .trim()
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let mut rest = vec![0; length - content.len()];
        self.0.read_exact(&mut rest).expect("the whole answer");
        content.extend(rest);
        assert!(
            head.starts_with("HTTP/1.1 20"),
            "{path}: {head}{}",
            String::from_utf8_lossy(&content)
        );
        serde_json::from_slice(&content).expect("JSON")
    }

    /// The answer's head, and what came of its body with it.
    fn head(&mut self) -> (String, Vec<u8>) {
        let mut bytes = Vec::new();
        loop {
            let mut some = [0; 16 << 10];
            let read = self.0.read(&mut some).expect("the daemon answers");
            assert!(read > 0, "the daemon has hung up");
            bytes.extend(&some[..read]);
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let content = bytes.split_off(end + 4);
                return (String::from_utf8_lossy(&bytes).into_owned(), content);
            }
        }
    }
}
