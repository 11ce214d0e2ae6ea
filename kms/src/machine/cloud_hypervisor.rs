//! cloud-hypervisor: the disks in the configuration of its virtual machine (`GET /api/v1/vm.info`).

use std::convert::Infallible;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{Device, MachineError};
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

/// The machine's devices; none if it has not been made.
///
/// # Errors
/// [`MachineError`].
pub(super) async fn writable_devices(stream: UnixStream) -> Result<Option<Vec<Device>>, MachineError> {
    let (sender, connection) = Builder::new()
        .max_buf_size(limits::HEAD_BYTES)
        .max_headers(limits::HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let drive = async {
        // Its failure is the failure of the call, which reports it.
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
    Ok(Some(info.config.devices()))
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
    fn devices(self) -> Vec<Device> {
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
        disks.chain(pmem).collect()
    }
}
