//! cloud-hypervisor: what can be written to in the configuration of its virtual machine (`GET /api/v1/vm.info`), and a
//! disk that comes to it and goes from it (`vm.add-disk`, `vm.remove-device`; rule A09).

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::answer::{Device, Disk as Plugged, MachineError, short};
use super::rights::Rights;
use crate::limits;

/// How the API says that no virtual machine has been made yet.
const NOT_CREATED: [&str; 2] = ["VM is not created", "VmNotCreated"];

#[derive(Deserialize)]
struct Info {
    config: Config,
    /// What the machine has, by id.
    #[serde(default)]
    device_tree: HashMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct Config {
    disks: Option<Vec<Disk>>,
    pmem: Option<Vec<Pmem>>,
    generic_vhost_user: Option<Vec<VhostUser>>,
    user_devices: Option<Vec<VfioUser>>,
    devices: Option<Vec<Vfio>>,
}

#[derive(Deserialize)]
struct Disk {
    #[serde(default)]
    id: Option<String>,
    path: Option<String>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    vhost_user: bool,
    vhost_socket: Option<String>,
}

#[derive(Deserialize)]
struct Pmem {
    file: String,
    #[serde(default)]
    discard_writes: bool,
}

#[derive(Deserialize)]
struct VhostUser {
    socket: String,
    /// Virtio 1.2, section 5.
    device_type: u32,
}

/// What a process offers as a PCI device. Which kind it is, is not told.
#[derive(Deserialize)]
struct VfioUser {
    socket: String,
}

/// A device of the host, by its directory in `/sys/bus/pci/devices`.
#[derive(Deserialize)]
struct Vfio {
    path: Option<String>,
}

/// Block device, SCSI host, persistent memory.
const STORAGE: [u32; 3] = [2, 8, 27];

/// A connection to its API.
pub(crate) struct Api {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with this.
    _connection: JoinSet<()>,
}

impl Api {
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn new(stream: UnixStream) -> Result<Self, MachineError> {
        let (sender, connection) = Builder::new()
            .max_buf_size(limits::HEAD_BYTES)
            .max_headers(limits::HEADERS)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut driven = JoinSet::new();
        // A failure of the connection is the failure of the call, which reports it.
        driven.spawn(async move { drop(connection.await) });
        Ok(Api {
            sender,
            _connection: driven,
        })
    }

    /// The machine's devices; none if it has not been made.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn writable_devices(
        &mut self,
        rights: Rights,
    ) -> Result<Option<Vec<Device>>, MachineError> {
        Ok(match self.info().await? {
            Some(info) => Some(info.config.devices(rights).await),
            None => None,
        })
    }

    /// Whether there is a disk of this id. One that the guest is asked to let go has left the configuration, and not the machine.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn has(&mut self, id: &str) -> Result<bool, MachineError> {
        let Some(Info { config, device_tree }) = self.info().await? else {
            return Ok(false);
        };
        let mut disks = config.disks.iter().flatten();
        Ok(disks.any(|disk| disk.id.as_deref() == Some(id)) || device_tree.contains_key(id))
    }

    /// Plugs a disk in.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn plug(&mut self, disk: &Plugged) -> Result<(), MachineError> {
        let Plugged { id, socket, queues } = disk;
        let body = json!({"id": id, "vhost_user": true, "vhost_socket": socket, "num_queues": queues, "queue_size": 128});
        self.change("/api/v1/vm.add-disk", &body).await
    }

    /// Asks the guest to let go of a disk, until it has. One that is not there has gone.
    ///
    /// # Errors
    /// [`MachineError::GuestSilent`] and others.
    pub(super) async fn unplug(&mut self, id: &str) -> Result<(), MachineError> {
        let deadline = Instant::now() + limits::UNPLUG_TIME;
        let mut ask_again = Instant::now();
        let mut asked = false;
        while self.has(id).await? {
            let now = Instant::now();
            if now >= deadline {
                return Err(MachineError::GuestSilent);
            }
            if now >= ask_again {
                ask_again = now + limits::UNPLUG_AGAIN_TIME;
                match self.change("/api/v1/vm.remove-device", &json!({"id": id})).await {
                    // It may have gone meanwhile, or not be asked twice.
                    Err(MachineError::Refused(..)) if asked || !self.has(id).await? => {}
                    removed => removed?,
                }
                asked = true;
            }
            sleep(limits::MACHINE_LOOK_TIME).await;
        }
        Ok(())
    }

    async fn info(&mut self) -> Result<Option<Info>, MachineError> {
        let (status, body) = self
            .exchange(Method::GET, "/api/v1/vm.info", Bytes::new())
            .await?;
        if status == StatusCode::OK {
            return Ok(Some(serde_json::from_slice(&body)?));
        }
        let text = String::from_utf8_lossy(&body);
        if NOT_CREATED.iter().any(|words| text.contains(words)) {
            return Ok(None);
        }
        Err(MachineError::Status(status.as_u16()))
    }

    async fn change(&mut self, path: &'static str, body: &Value) -> Result<(), MachineError> {
        let body = body.to_string().into();
        let (status, body) = self.exchange(Method::PUT, path, body).await?;
        if status.is_success() {
            return Ok(());
        }
        let words = short(&String::from_utf8_lossy(&body));
        Err(MachineError::Refused(status.as_u16(), words))
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), MachineError> {
        self.sender.ready().await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = hyper::Uri::from_static(path);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let limited = Limited::new(response.into_body(), limits::MACHINE_ANSWER_BYTES);
        match limited.collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(MachineError::TooLarge),
            Err(_) => Err(MachineError::Ended),
        }
    }
}

impl Config {
    async fn devices(self, rights: Rights) -> Vec<Device> {
        let disks = self.disks.unwrap_or_default().into_iter();
        let disks = disks.filter(|disk| !disk.readonly).map(|disk| Device {
            path: disk.path.or(disk.id).unwrap_or_default(),
            vhost_socket: disk.vhost_socket.filter(|_| disk.vhost_user),
        });
        let pmem = self.pmem.unwrap_or_default().into_iter();
        let pmem = pmem.filter(|pmem| !pmem.discard_writes).map(|pmem| Device {
            path: pmem.file,
            vhost_socket: None,
        });
        let vhost_user = self.generic_vhost_user.unwrap_or_default().into_iter();
        let vhost_user = vhost_user.filter(|device| STORAGE.contains(&device.device_type));
        let vhost_user = vhost_user.map(|device| Device {
            path: device.socket.clone(),
            vhost_socket: Some(device.socket),
        });
        let vfio_user = self.user_devices.unwrap_or_default().into_iter();
        let vfio_user = vfio_user.map(|device| device.socket);
        let mut others: Vec<String> = vfio_user.collect();
        for device in self.devices.unwrap_or_default() {
            let path = device.path.unwrap_or_default();
            if may_store(Path::new(&path), rights).await {
                others.push(path);
            }
        }
        let others = others.into_iter().map(|path| Device {
            path,
            vhost_socket: None,
        });
        disks.chain(pmem).chain(vhost_user).chain(others).collect()
    }
}

/// Whether a PCI device of the host is a mass storage controller (PCI Code and ID Assignment Specification, class 01h), or
/// cannot be told.
async fn may_store(directory: &Path, rights: Rights) -> bool {
    // Whatever lies there, nobody is waited for.
    let file = directory.join("class");
    let class = rights.look(&file, |path| {
        let mut class = [0; 4];
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        file.read_exact(&mut class)?;
        Ok::<_, io::Error>(class)
    });
    !matches!(class.await, Ok(Ok(class)) if class != *b"0x01")
}
