//! QEMU, by QMP: its nodes of the block layer (`query-named-block-nodes`), of which a vhost-user-blk device is none, and its
//! version (`query-version`).

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::answer::{Device, MachineError, short};
use crate::limits;
use sealblk_api::QemuVersion;

/// Nodes that change or filter what others hold; those others are nodes of their own.
const LAYERS: &[&str] = &[
    "backup-top",
    "blkdebug",
    "blklogwrites",
    "blkverify",
    "bochs",
    "cloop",
    "commit_top",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "dmg",
    "luks",
    "mirror_top",
    "parallels",
    "preallocate",
    "qcow",
    "qcow2",
    "qed",
    "quorum",
    "raw",
    "replication",
    "snapshot-access",
    "throttle",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
];

/// Nodes whose data lies on other hosts, or nowhere.
const ELSEWHERE: &[&str] = &[
    "ftp", "ftps", "gluster", "http", "https", "iscsi", "nfs", "null-aio", "null-co", "rbd", "ssh",
];

/// A node, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Node {
    #[serde(default)]
    node_name: String,
    drv: String,
    file: String,
    ro: bool,
}

/// Of what `query-version` answers, as much as matters here.
#[derive(Debug, Deserialize)]
struct Version {
    qemu: Numbers,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    major: u16,
    minor: u16,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

/// The machine's version; none if it is no QEMU.
///
/// Here it is not waited for QMP to speak first. cloud-hypervisor never does, and refuses at once what is no HTTP.
///
/// # Errors
/// [`MachineError`].
pub(super) async fn version(stream: UnixStream) -> Result<Option<QemuVersion>, MachineError> {
    let mut session = Session::new(stream);
    session.send(&json!({"execute": "qmp_capabilities"})).await?;
    match session.greeted().await {
        Err(MachineError::Foreign) => return Ok(None),
        greeted => greeted?,
    }
    session.answer().await?;
    session.version().await.map(Some)
}

impl Node {
    /// A driver that is not known may be anything.
    fn may_be_local(&self) -> bool {
        let driver = self.drv.as_str();
        let remote = driver == "nbd" && self.file.starts_with("nbd://");
        !remote && !LAYERS.contains(&driver) && !ELSEWHERE.contains(&driver)
    }

    fn into_device(self) -> Device {
        let named = match self.file.strip_prefix("json:").map(serde_json::from_str::<Value>) {
            Some(Ok(options)) => options["filename"].as_str().map(str::to_owned),
            Some(Err(_)) => None,
            None => Some(self.file).filter(|file| !file.is_empty()),
        };
        Device {
            path: named.unwrap_or(self.node_name),
            vhost_socket: None,
        }
    }
}

/// One connection. Of what is said, each answer has a limit, with the events before it.
pub(crate) struct Session {
    input: BufReader<Take<OwnedReadHalf>>,
    output: OwnedWriteHalf,
}

impl Session {
    fn new(stream: UnixStream) -> Self {
        let (input, output) = stream.into_split();
        Session {
            input: BufReader::new(input.take(0)),
            output,
        }
    }

    /// Of a machine that has spoken, so that it runs.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn begin(stream: UnixStream) -> Result<Self, MachineError> {
        let mut session = Session::new(stream);
        session.greeted().await?;
        session.execute("qmp_capabilities", json!({})).await?;
        Ok(session)
    }

    /// The machine's devices.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn writable_devices(&mut self) -> Result<Vec<Device>, MachineError> {
        let arguments = json!({"flat": true});
        let nodes: Vec<Node> = self.command("query-named-block-nodes", arguments).await?;
        Ok(nodes
            .into_iter()
            .filter(|node| !node.ro && node.may_be_local())
            .map(Node::into_device)
            .collect())
    }

    /// The machine's version.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn version(&mut self) -> Result<QemuVersion, MachineError> {
        let Version { qemu } = self.command("query-version", json!({})).await?;
        let Numbers { major, minor } = qemu;
        Ok(QemuVersion { major, minor })
    }

    /// What a command answers.
    pub(super) async fn command<T: DeserializeOwned>(
        &mut self,
        name: &str,
        arguments: Value,
    ) -> Result<T, MachineError> {
        Ok(serde_json::from_value(self.execute(name, arguments).await?)?)
    }

    /// A command whose answer says nothing.
    pub(super) async fn execute(&mut self, name: &str, arguments: Value) -> Result<Value, MachineError> {
        self.send(&json!({"execute": name, "arguments": arguments}))
            .await?;
        self.answer().await
    }

    /// The line's end is one for HTTP too.
    async fn send(&mut self, command: &Value) -> Result<(), MachineError> {
        let line = format!("{command}\r\n");
        let written = self.output.write_all(line.as_bytes()).await;
        written.map_err(MachineError::Connection)
    }

    /// Reads what QMP says first.
    async fn greeted(&mut self) -> Result<(), MachineError> {
        self.limit();
        match self.message().await {
            Ok(message) if message.greeting.is_some() => Ok(()),
            Ok(_) | Err(MachineError::Json(_)) => Err(MachineError::Foreign),
            Err(other) => Err(other),
        }
    }

    async fn answer(&mut self) -> Result<Value, MachineError> {
        self.limit();
        loop {
            let message = self.message().await?;
            if message.event.is_some() {
                continue;
            }
            if let Some(refusal) = message.error {
                return Err(MachineError::Qmp(short(&refusal.desc)));
            }
            return message.answer.ok_or(MachineError::Foreign);
        }
    }

    fn limit(&mut self) {
        let limit = limits::MACHINE_ANSWER_BYTES as u64;
        self.input.get_mut().set_limit(limit);
    }

    async fn message(&mut self) -> Result<Message, MachineError> {
        let mut line = Vec::new();
        self.input
            .read_until(b'\n', &mut line)
            .await
            .map_err(MachineError::Connection)?;
        if line.ends_with(b"\n") {
            return Ok(serde_json::from_slice(&line)?);
        }
        Err(match self.input.get_ref().limit() {
            0 => MachineError::TooLarge,
            _ => MachineError::Ended,
        })
    }
}
