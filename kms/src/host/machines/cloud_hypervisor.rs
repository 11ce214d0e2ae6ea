//! cloud-hypervisor: what can be written to in the configuration of its virtual machine (`GET /api/v1/vm.info`).

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::answer::{Device, MachineError};
use super::rights::Rights;
use crate::limits;

/// How the API says that no virtual machine has been made yet.
const NOT_CREATED: [&str; 2] = ["VM is not created", "VmNotCreated"];

#[derive(Deserialize)]
struct Info {
    config: Config,
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

/// The machine's devices; none if it has not been made.
///
/// # Errors
/// [`MachineError`].
pub(super) async fn writable_devices(
    stream: UnixStream,
    rights: Rights,
) -> Result<Option<Vec<Device>>, MachineError> {
    let (sender, connection) = Builder::new()
        .max_buf_size(limits::HEAD_BYTES)
        .max_headers(limits::HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let drive = async {
        // A failure of the connection is the failure of the call, which reports it.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    let (status, body) = tokio::select! {
        answer = exchange(sender) => answer?,
        never = drive => match never {},
    };
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        if NOT_CREATED.iter().any(|words| text.contains(words)) {
            return Ok(None);
        }
        return Err(MachineError::Status(status.as_u16()));
    }
    let info: Info = serde_json::from_slice(&body)?;
    Ok(Some(info.config.devices(rights).await))
}

async fn exchange(mut sender: SendRequest<Empty<Bytes>>) -> Result<(StatusCode, Bytes), MachineError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::from_static("/api/v1/vm.info");
    request
        .headers_mut()
        .insert(HOST, hyper::header::HeaderValue::from_static("localhost"));
    let response = sender.send_request(request).await?;
    let status = response.status();
    let limited = Limited::new(response.into_body(), limits::MACHINE_ANSWER_BYTES);
    match limited.collect().await {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(MachineError::TooLarge),
        Err(_) => Err(MachineError::Ended),
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
