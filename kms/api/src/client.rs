//! HTTP/1.1 with JSON over the daemon's Unix socket: one connection, one call after the other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::passing::{Outgoing, Passing};
use crate::{
    AccountList, ApiError, AuditPage, BackupList, DiskList, ImageList, InstanceList, KeyList, KeyResources,
    ScheduleList, SnapshotList,
};

/// Largest answer, in bytes: a page of the API's most rows stays far below.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Rows asked for at once: the API's most.
const PAGE_ROWS: u32 = 1000;

/// How long the daemon may take to accept the connection, and to answer what it knows by heart.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a change may take that waits for a serving process. The daemon gives up earlier and says why.
const PATIENCE_FOR_CHANGES: Duration = Duration::from_secs(120);

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon refused, or failed.
    #[error("{}", .0.message)]
    Refused(ApiError),
    /// No socket there, or nobody listens.
    #[error(
        "is sealblk-kms running? --socket or SEALBLK_SOCKET names its socket. Cannot connect to {socket}"
    )]
    NotRunning {
        /// Where it was looked for.
        socket: String,
        /// The kernel's.
        #[source]
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("run sealctl as the user that runs sealblk-kms. Cannot open {socket}")]
    Permission {
        /// The socket.
        socket: String,
        /// The kernel's.
        #[source]
        source: io::Error,
    },
    /// The path cannot be a socket's.
    #[error("{socket} cannot be a socket's path: at most 107 bytes")]
    Path {
        /// The path.
        socket: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended in the middle.
    #[error(
        "the connection to sealblk-kms failed; whether the call was carried out is not known, so look first"
    )]
    Connection(#[source] hyper::Error),
    /// No answer in time.
    #[error("sealblk-kms has not answered within {0:?}; it may still carry the call out")]
    Timeout(Duration),
    /// An answer without end.
    #[error("the answer is larger than {MAX_ANSWER_BYTES} bytes; is {0} the socket of sealblk-kms?")]
    TooLarge(String),
    /// Not the answer of a sealblk-kms of this version.
    #[error("the answer (HTTP status {status}) cannot be understood; is {socket} the socket of sealblk-kms?")]
    Protocol {
        /// HTTP status.
        status: StatusCode,
        /// The socket.
        socket: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A list gives the same page again and again.
    #[error("the list does not go on after {0}")]
    Paging(String),
    /// The arguments cannot be put into a request.
    #[error("the request cannot be made")]
    Request(#[from] RequestError),
}

/// Why arguments cannot be put into a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not an HTTP request.
    #[error("not an HTTP request")]
    Http(#[from] hyper::http::Error),
    /// Not JSON.
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
}

impl ClientError {
    /// Stable code: the daemon's, or one of the same form.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            ClientError::Refused(error) => &error.code,
            ClientError::NotRunning { .. } => "KmsNotRunning",
            ClientError::Permission { .. } => "PermissionDenied",
            ClientError::Path { .. } => "InvalidSocket",
            ClientError::Connection(_) => "ConnectionFailed",
            ClientError::Timeout(_) => "KmsTimeout",
            ClientError::TooLarge(_) | ClientError::Protocol { .. } | ClientError::Paging(_) => {
                "ProtocolError"
            }
            ClientError::Request(_) => "InvalidRequest",
        }
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// For what the daemon knows by heart.
    Read,
    /// For what waits for other processes.
    Change,
    /// For as long as it takes, such as zeroing a whole block device.
    Endless,
}

impl Patience {
    fn limit(self) -> Option<Duration> {
        match self {
            Patience::Read => Some(PATIENCE),
            Patience::Change => Some(PATIENCE_FOR_CHANGES),
            Patience::Endless => None,
        }
    }
}

/// A list that the daemon sends in pages.
pub trait Page: DeserializeOwned {
    /// Where to go on, if there is more.
    fn next(&self) -> Option<String>;
    /// Adds the page that follows.
    fn append(&mut self, following: Self);
}

macro_rules! page {
    ($list:ty, $rows:ident) => {
        impl Page for $list {
            fn next(&self) -> Option<String> {
                self.next.as_ref().map(ToString::to_string)
            }
            fn append(&mut self, following: Self) {
                self.$rows.extend(following.$rows);
                self.next = following.next;
            }
        }
    };
}

page!(BackupList, backups);
page!(KeyList, keys);
page!(KeyResources, resources);
page!(InstanceList, instances);
page!(DiskList, disks);
page!(SnapshotList, snapshots);
page!(ScheduleList, schedules);
page!(ImageList, images);
page!(AccountList, accounts);
page!(AuditPage, audit);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    path: PathBuf,
    socket: String,
    /// Passes a file with the next request.
    outgoing: Outgoing,
}

impl Client {
    /// Connects to the daemon's socket.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let socket = path.display().to_string();
        let connected = in_time(Some(PATIENCE), UnixStream::connect(path)).await?;
        let stream = connected.map_err(|error| connect_error(path, error))?;
        let stream = Passing::new(stream);
        let outgoing = stream.outgoing();
        let handshaken = in_time(Some(PATIENCE), handshake(TokioIo::new(stream))).await?;
        let (sender, connection) = handshaken.map_err(ClientError::Connection)?;
        // A failure of the connection is that of the call under way, which reports it.
        tokio::spawn(connection);
        Ok(Client {
            sender,
            path: path.to_owned(),
            socket,
            outgoing,
        })
    }

    /// Connects once more: the daemon ends connections that are not used.
    pub async fn reconnect(&mut self) -> Result<(), ClientError> {
        *self = Client::connect(&self.path).await?;
        Ok(())
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), Patience::Read).await
    }

    /// `GET` of what takes as long as it takes.
    pub async fn get_patiently<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), Patience::Endless)
            .await
    }

    /// `GET` of a whole list, page by page.
    pub async fn list<L: Page>(&mut self, path: &str) -> Result<L, ClientError> {
        let mut list: L = self.get(&with(path, "limit", &PAGE_ROWS.to_string())).await?;
        while let Some(after) = list.next() {
            let page = self.page_after::<L>(path, &after).await?;
            list.append(page);
        }
        Ok(list)
    }

    /// The page of the list that follows `after`.
    pub async fn page_after<L: Page>(&mut self, path: &str, after: &str) -> Result<L, ClientError> {
        let path = with(&with(path, "after", after), "limit", &PAGE_ROWS.to_string());
        let page: L = self.get(&path).await?;
        match page.next() {
            Some(next) if next == after => Err(ClientError::Paging(next)),
            _ => Ok(page),
        }
    }

    /// `POST` of a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        patience: Patience,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Request(error.into()))?;
        self.call(Method::POST, path, body.into(), patience).await
    }

    /// `POST` of a JSON body, with an open file beside it if there is one.
    pub async fn post_with<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        file: Option<File>,
        patience: Patience,
    ) -> Result<T, ClientError> {
        if let Some(file) = file {
            self.outgoing.put(file.into());
        }
        self.post(path, body, patience).await
    }

    /// `POST` without a body.
    pub async fn post_empty<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::POST, path, Bytes::new(), Patience::Change)
            .await
    }

    /// `PATCH` of a JSON body.
    pub async fn patch<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Request(error.into()))?;
        self.call(Method::PATCH, path, body.into(), Patience::Change)
            .await
    }

    /// `DELETE`.
    pub async fn delete<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, Bytes::new(), Patience::Change)
            .await
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Patience,
    ) -> Result<T, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClientError::Request(error.into()))?;
        let (status, body) = in_time(patience.limit(), self.exchange(request)).await??;
        let understood = |source| ClientError::Protocol {
            status,
            socket: self.socket.clone(),
            source,
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(understood);
        }
        Err(ClientError::Refused(
            serde_json::from_slice::<ApiError>(&body).map_err(understood)?,
        ))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        self.sender.ready().await.map_err(ClientError::Connection)?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(ClientError::Connection)?;
        let status = response.status();
        Ok((status, self.body_of(response).await?))
    }

    async fn body_of(&self, response: Response<hyper::body::Incoming>) -> Result<Bytes, ClientError> {
        match Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
        {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge(self.socket.clone())),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(ClientError::Connection(*error)),
                Err(_) => Err(ClientError::TooLarge(self.socket.clone())),
            },
        }
    }
}

async fn in_time<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T, ClientError> {
    match limit {
        None => Ok(work.await),
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .map_err(|_| ClientError::Timeout(limit)),
    }
}

fn connect_error(path: &Path, source: io::Error) -> ClientError {
    let socket = path.display().to_string();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Permission { socket, source },
        io::ErrorKind::InvalidInput => ClientError::Path { socket, source },
        _ => ClientError::NotRunning { socket, source },
    }
}

/// `/v1/` and the segments, each encoded, so that a name cannot lead to another call.
pub fn route(segments: &[&str]) -> String {
    let encoded: Vec<String> = segments.iter().map(|segment| percent_encoded(segment)).collect();
    format!("/v1/{}", encoded.join("/"))
}

/// The path with one more parameter.
pub fn with(path: &str, name: &str, value: &str) -> String {
    let before = if path.contains('?') { '&' } else { '?' };
    format!("{path}{before}{name}={}", percent_encoded(value))
}

/// RFC 3986's unreserved characters stay as they are; but a dot does not where it would be a path of its own.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
const ENCODED_BUT_DOTS: &AsciiSet = &ENCODED.remove(b'.');

fn percent_encoded(text: &str) -> String {
    let dots_only = text.bytes().all(|byte| byte == b'.');
    utf8_percent_encode(text, if dots_only { ENCODED } else { ENCODED_BUT_DOTS }).to_string()
}

#[cfg(test)]
mod tests;
