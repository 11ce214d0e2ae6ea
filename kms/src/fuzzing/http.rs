//! Requests of a caller who may make them: paths, queries, headers and bodies, on a state directory of their own.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::{Request, Response, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::catalogue::root_key_kind::RootKeyKind;
use crate::context::Kms;
use crate::daemon;
use crate::host::backends::Program;
use crate::http::admission::Peer;
use crate::http::routes::router;
use crate::offline::init;
use crate::state::StateDir;

/// Most requests of one input.
const REQUESTS: usize = 16;
/// Largest number that a request may have, but for those that are no size at all: disks are really made.
const LARGEST: u64 = 16 << 20;
const NO_SIZE: u64 = 1 << 50;

/// What there is already: a line each, as [`request`] takes them.
const OBJECTS: &[&str] = &[
    "POST /v1/kms/activate\n\n{}",
    "POST /v1/keys\n\n{\"name\": \"mine\"}",
    "POST /v1/keys\n\n{\"name\": \"theirs\", \"import\": true}",
    "POST /v1/disks\n\n{\"name\": \"data\", \"size\": 4096, \"store\": \"raw\", \"encrypted\": true}",
    "POST /v1/disks\n\n{\"name\": \"plain\", \"size\": 4096, \"store\": \"raw\"}",
    "POST /v1/instances\n\n{\"name\": \"vm\"}",
];

/// A state directory that goes with this.
struct World {
    directory: PathBuf,
    kms: Arc<Kms>,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("threads")
    })
}

fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sealblk-fuzzing-{}-{name}", std::process::id()))
}

/// A file of a state directory.
struct Kept {
    /// In the directory.
    path: PathBuf,
    contents: Vec<u8>,
}

/// The files of a state directory with [`OBJECTS`].
fn template() -> &'static [Kept] {
    static TEMPLATE: OnceLock<Vec<Kept>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let state = directory("template");
        runtime().block_on(async {
            let region = init::Region {
                region: "eu-1".into(),
                zone: "eu-1a".into(),
                profile: "sealblk".into(),
                balance: 1_000_000_000,
                activate: false,
            };
            let made = init::init(&state, &region, RootKeyKind::File, None).await;
            made.expect("a state directory");
            let kms = open(&state).await;
            for text in OBJECTS {
                let response = call(&kms, text.as_bytes()).await.expect("a request");
                assert!(response.status().is_success(), "{text}: {}", response.status());
            }
            kms.catalogue.close().await;
        });
        let mut kept = Vec::new();
        keep(&state, Path::new(""), &mut kept).expect("files that can be read");
        std::fs::remove_dir_all(&state).expect("files of our own");
        kept
    })
}

fn keep(state: &Path, within: &Path, kept: &mut Vec<Kept>) -> io::Result<()> {
    for entry in std::fs::read_dir(state.join(within))? {
        let entry = entry?;
        let path = within.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            keep(state, &path, kept)?;
        } else {
            let contents = std::fs::read(entry.path())?;
            kept.push(Kept { path, contents });
        }
    }
    Ok(())
}

async fn open(state: &Path) -> Arc<Kms> {
    let state = StateDir::open(state).expect("a state directory");
    // Nothing is ever started.
    let program = Program {
        path: "/nonexistent".into(),
        log: None,
        arguments: Vec::new(),
    };
    Arc::new(
        daemon::open(state, program, None)
            .await
            .expect("a state directory"),
    )
}

impl World {
    async fn new() -> Self {
        let directory = directory("world");
        for part in ["", "disks", "run"] {
            let made = DirBuilder::new().mode(0o711).create(directory.join(part));
            made.expect("a directory that nobody has");
        }
        for Kept { path, contents } in template() {
            let mut options = File::options();
            let file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(directory.join(path));
            let written = file.and_then(|mut file| file.write_all(contents));
            written.expect("room for a state directory");
        }
        World {
            kms: open(&directory).await,
            directory,
        }
    }

    async fn end(self) {
        self.kms.end().await;
        self.kms.supervisor.abandon();
        self.kms.catalogue.close().await;
        std::fs::remove_dir_all(&self.directory).expect("files of our own");
    }
}

/// Requests, with a byte of zeros between them: "METHOD TARGET", a line for each header, an empty line, the body.
pub fn api(data: &[u8]) {
    template();
    runtime().block_on(async {
        let world = World::new().await;
        for text in data.split(|byte| *byte == 0).take(REQUESTS) {
            let Some(response) = call(&world.kms, text).await else {
                continue;
            };
            check(response, text).await;
        }
        world.end().await;
    });
}

/// Answered in the way that the API promises.
async fn check(response: Response<Body>, text: &[u8]) {
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("an answer")
        .to_bytes();
    let text = String::from_utf8_lossy(text);
    let answer: Value =
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{text}\n{status} {error}"));
    if !status.is_success() {
        // Also that a process cannot be started is told by a code of its own.
        let is_told = answer["code"].as_str().is_some_and(|code| code != "Internal");
        assert!(is_told, "{text}\n{status} {answer}");
    }
}

/// Makes a request, if these bytes are one that can be made here.
async fn call(kms: &Arc<Kms>, text: &[u8]) -> Option<Response<Body>> {
    let mut request = request(text)?;
    request.extensions_mut().insert(Peer {
        uid: rustix::process::geteuid().as_raw(),
        pid: 1,
    });
    let answered = router(Arc::clone(kms)).oneshot(request).await;
    Some(answered.unwrap_or_else(|never| match never {}))
}

fn request(text: &[u8]) -> Option<Request<Body>> {
    let end = text.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&text[..end], &text[end + 2..]),
        None => (text, &[][..]),
    };
    if !is_harmless(body) {
        return None;
    }
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(2, |byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut builder = Request::builder().method(method).uri(target);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        builder = builder.header(&line[..colon], value);
    }
    if !body.is_empty() {
        let headers = builder.headers_mut()?;
        headers
            .entry(header::CONTENT_TYPE)
            .or_insert("application/json".parse().ok()?);
    }
    builder.body(Body::from(body.to_vec())).ok()
}

/// Whether a body names no file of this machine and wants no room: what calls do with these is not for arbitrary bytes.
fn is_harmless(body: &[u8]) -> bool {
    fn of(value: &Value) -> bool {
        match value {
            Value::String(text) => !text.contains('/'),
            Value::Number(number) => number
                .as_u64()
                .is_none_or(|number| !(LARGEST..NO_SIZE).contains(&number)),
            Value::Array(values) => values.iter().all(of),
            Value::Object(fields) => fields
                .iter()
                .all(|(name, value)| name == "wrapped_material" || of(value)),
            Value::Null | Value::Bool(_) => true,
        }
    }
    // What is no JSON here is none to the calls either.
    serde_json::from_slice(body).map_or(true, |value| of(&value))
}
