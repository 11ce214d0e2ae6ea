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

/// How often each call is timed.
const ROUNDS: u64 = 30;

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
    /// How many of them are attached; no process serves them.
    #[arg(long, default_value_t = 10_000)]
    attached: u64,
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
        "start with {} disks, {} of them attached, and {} audit records: {:.2} s",
        options.disks,
        options.attached,
        options.records,
        start.elapsed().as_secs_f64()
    );
    answers(&kms, options);
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

/// Puts rows of every kind into a catalogue that nobody serves: of five disks two are encrypted and one has a snapshot. None
/// has a file.
fn fill(state: &Path, options: &Options) {
    const TIME: &str = "'2026-01-01T00:00:00.000Z'";
    let mut catalogue = Catalogue::open(state);
    let (disks, attached) = (options.disks, options.attached.min(options.disks));
    let series = |count: u64| {
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})")
    };
    catalogue.execute("BEGIN");
    for (table, columns, count, values) in [
        (
            "lineages",
            "id, account, key, key_version, wrapped_key, wrapped_salt, created",
            disks,
            "printf('lin-f%015d', i), 'default', (SELECT id FROM keys WHERE origin = 'service'), 1, zeroblob(60), zeroblob(60),
             {time} FROM n WHERE i % 5 < 2",
        ),
        (
            "volumes",
            "id, account, encrypted, size, store, zone, lineage, created",
            disks,
            "printf('disk-f%015d', i), 'default', i % 5 < 2, 1048576, iif(i % 5 = 0, 'layered', 'raw'), 'test-1a',
             iif(i % 5 < 2, printf('lin-f%015d', i), NULL), {time} FROM n",
        ),
        (
            "disks",
            "id, account, name, state, created",
            disks,
            "printf('disk-f%015d', i), 'default', printf('filled%d', i), iif(i <= {attached}, 'in-use', 'available'), {time}
             FROM n",
        ),
        (
            "snapshots",
            "id, account, volume, name, state, size, created",
            disks,
            "printf('snap-f%015d', i), 'default', printf('disk-f%015d', i), 'first', 'available', 1048576, {time}
             FROM n WHERE i % 5 = 0",
        ),
        (
            "images",
            "id, account, name, snapshot, state, created",
            disks,
            "printf('img-f%015d', i), 'default', printf('filled%d', i), printf('snap-f%015d', i), 'available', {time}
             FROM n WHERE i % 50 = 0",
        ),
        (
            "instances",
            "id, account, name, zone, local_storage, bare_metal, created",
            attached / 8 + 1,
            "printf('ins-f%015d', i), 'default', printf('filled%d', i), 'test-1a', 0, 0, {time} FROM n",
        ),
        (
            "services",
            "id, disk, start, serial",
            attached,
            "printf('att-f%015d', i), printf('disk-f%015d', i), 0, 1000000 + i FROM n",
        ),
        (
            "attachments",
            "id, account, disk, service, instance, queues, read_only, socket_mode, serial, created",
            attached,
            "printf('att-f%015d', i), 'default', printf('disk-f%015d', i), printf('att-f%015d', i),
             printf('ins-f%015d', i / 8 + 1), 4, 0, 384, 1000000 + i, {time} FROM n",
        ),
    ] {
        let values = values
            .replace("{time}", TIME)
            .replace("{attached}", &attached.to_string());
        catalogue.execute(&format!(
            "INSERT INTO {table} ({columns}) {} SELECT {values}",
            series(count)
        ));
    }
    catalogue.execute("UPDATE meta SET next_serial = 2000000");
    fill_audit(&mut catalogue, options.records);
    catalogue.execute("COMMIT");
}

/// Continues the chain of the audit log, as its format is documented: of ten records one is the caller's own account's.
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
            let mut texts = texts;
            if seq % 10 != 0 {
                texts[1] = "other";
            }
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
fn answers(kms: &Kms, options: &Options) {
    let mut connection = Connection::new(&kms.socket());
    let key = connection.call("GET", "/v1/keys", &json!({}))["keys"][0]["id"].clone();
    let key = key.as_str().expect("the service key").to_owned();
    // Of a disk for each round, over all of them.
    let number = |round: u64| 1 + round * options.disks.saturating_sub(1) / ROUNDS;
    let page = |list: &'static str, prefix: &'static str| {
        move |round| format!("/v1/{list}?limit=100&after={prefix}-f{:015}", number(round))
    };
    let attached = |round: u64| 1 + round * options.attached.saturating_sub(1) / ROUNDS;
    type Read<'a> = (&'static str, Box<dyn Fn(u64) -> String + 'a>);
    let reads: [Read; 13] = [
        ("kms status", Box::new(|_| "/v1/kms".to_owned())),
        ("a page of 100 disks", Box::new(page("disks", "disk"))),
        ("a page of 100 snapshots", Box::new(page("snapshots", "snap"))),
        ("a page of 100 images", Box::new(page("images", "img"))),
        ("a page of 100 instances", Box::new(page("instances", "ins"))),
        ("a page of 100 attachments", Box::new(page("attachments", "att"))),
        (
            "a page of 100 of what a key protects",
            Box::new(|round| {
                format!(
                    "/v1/keys/{key}/resources?limit=100&after=disk-f{:015}",
                    number(round)
                )
            }),
        ),
        ("a key", Box::new(|_| format!("/v1/keys/{key}"))),
        (
            "a raw disk",
            Box::new(|round| format!("/v1/disks/filled{}", number(round) / 5 * 5 + 1)),
        ),
        (
            "an attached disk",
            Box::new(|round| format!("/v1/disks/filled{}", attached(round) / 5 * 5 + 1)),
        ),
        (
            "an attachment",
            Box::new(|round| format!("/v1/attachments/att-f{:015}", attached(round))),
        ),
        ("usage", Box::new(|_| "/v1/usage".to_owned())),
        (
            "a page of 100 audit records, one of ten being the account's",
            Box::new(|round| format!("/v1/audit?limit=100&after={}", round * options.records / ROUNDS)),
        ),
    ];
    for (what, path) in reads {
        let times = (0..ROUNDS).map(|round| {
            let path = path(round);
            timed(|| drop(connection.call("GET", &path, &json!({}))))
        });
        report(what, times.collect());
    }
    let changes: [(&str, &str, &str, Value); 12] = [
        (
            "creating a plain disk",
            "POST",
            "/v1/disks",
            json!({"name": "new", "size": 4096, "store": "raw", "encrypted": false}),
        ),
        (
            "renaming a disk",
            "PATCH",
            "/v1/disks/new",
            json!({"name": "newer"}),
        ),
        ("deleting a plain disk", "DELETE", "/v1/disks/newer", json!({})),
        (
            "creating an encrypted disk",
            "POST",
            "/v1/disks",
            json!({"name": "new", "size": 4096, "store": "raw"}),
        ),
        (
            "an attach",
            "POST",
            "/v1/attachments",
            json!({"disk": "new", "instance": "vm", "start": false}),
        ),
        ("a detach", "POST", "/v1/disks/new/detach", json!({})),
        ("deleting an encrypted disk", "DELETE", "/v1/disks/new", json!({})),
        (
            "registering an instance",
            "POST",
            "/v1/instances",
            json!({"name": "new"}),
        ),
        ("removing an instance", "DELETE", "/v1/instances/new", json!({})),
        ("making a key", "POST", "/v1/keys", json!({"name": "own"})),
        (
            "scheduling its deletion",
            "POST",
            "/v1/keys/own/schedule-deletion",
            json!({"days": 7}),
        ),
        (
            "cancelling that",
            "POST",
            "/v1/keys/own/cancel-deletion",
            json!({}),
        ),
    ];
    let mut times = vec![Vec::new(); changes.len()];
    for round in 0..ROUNDS {
        for ((_, method, path, body), times) in changes.iter().zip(&mut times) {
            // A key's name is never free again.
            let own = format!("own{round}");
            let body = match &body["name"] {
                name if name == "own" => json!({"name": own}),
                _ => body.clone(),
            };
            let path = path.replace("/own/", &format!("/{own}/"));
            times.push(timed(|| drop(connection.call(method, &path, &body))));
        }
    }
    for ((what, ..), times) in changes.into_iter().zip(times) {
        report(what, times);
    }
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
