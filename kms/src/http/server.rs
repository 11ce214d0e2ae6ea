//! Connections: taken one by one from the socket, each with a limit on everything.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{SemaphorePermit, mpsc, watch};
use tower::ServiceExt;

use super::admission::{self, Peer, REQUEST_ID};
use super::passing::Passing;
use super::routes::router;
use super::shares::{Place, Refusals, Shares};
use crate::context::Kms;
use crate::error::{Code, Error};
use crate::id::{self, Kind};
use crate::{limits, request};

/// What all connections have in common.
struct Server {
    kms: Arc<Kms>,
    router: Router,
    shares: Arc<Shares>,
    stop: watch::Receiver<bool>,
}

/// Serves the API until `stop` is true; then waits for the requests that run.
pub(crate) async fn serve(
    listener: UnixListener,
    kms: Arc<Kms>,
    shares: Arc<Shares>,
    mut stop: watch::Receiver<bool>,
) {
    let server = Arc::new(Server {
        router: router(Arc::clone(&kms)),
        kms,
        shares,
        stop: stop.clone(),
    });
    let (open, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (server, open) = (Arc::clone(&server), open.clone());
                tokio::spawn(async move {
                    server.connection(stream).await;
                    drop(open);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: that may pass.
                let error = Error::because(Code::Internal, "a connection cannot be taken", error);
                log::error!("{}", error.full_message());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop((listener, open));
    let _ = tokio::time::timeout(limits::SHUTDOWN_TIME, ended.recv()).await;
}

impl Server {
    async fn connection(&self, stream: UnixStream) {
        let peer = match stream.peer_cred() {
            Ok(credentials) => Peer {
                uid: credentials.uid(),
                pid: credentials.pid().unwrap_or(0),
            },
            Err(error) => return log::warn!("a caller without credentials: {error}"),
        };
        let Some(share) = self.shares.find(peer.uid) else {
            return self.refuse_stranger(&stream, peer).await;
        };
        let Some(waiting) = share.connect() else {
            let text = format!(
                "uid {} has more calls under way than are taken at once: try again when some have ended",
                peer.uid
            );
            let refusal = std::future::ready(Error::new(Code::TooManyCalls, text));
            let _place = first_words(&stream, share.refusals()).await;
            return answer_and_close(&stream, refusal).await;
        };
        let mut stop = self.stop.clone();
        tokio::select! {
            place = waiting.place() => self.serve_connection(stream, peer, place).await,
            () = stopped(&mut stop) => {}
        }
    }

    /// Answers without a look at what is asked.
    async fn refuse_stranger(&self, stream: &UnixStream, peer: Peer) {
        let _place = first_words(stream, self.shares.strangers()).await;
        answer_and_close(stream, admission::refuse_stranger(&self.kms, peer)).await;
    }

    async fn serve_connection(&self, stream: UnixStream, peer: Peer, place: Place) {
        let place = Arc::new(place);
        let stream = Passing::new(stream, place.files());
        let passed = stream.received();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(passed.clone());
            let answer = answer(self.router.clone(), request, Arc::clone(&place));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits::REQUEST_READ_TIME)
            .max_headers(limits::HEADERS)
            .max_buf_size(limits::HEAD_BYTES);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stopped(&mut stop) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            log::debug!("a connection of uid {} failed: {error}", peer.uid);
        }
    }
}

/// Carries a request out, whose place is taken until that is done: its caller may have hung up meanwhile.
async fn answer(router: Router, request: Request<Incoming>, place: Arc<Place>) -> Response {
    place.turn().await;
    let work = tokio::spawn(async move {
        let answer = router.oneshot(request.map(Body::new)).await;
        drop(place);
        answer
    });
    match work.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(never)) => match never {},
        Err(error) => Error::because(Code::Internal, "the call was not ended", error).into_response(),
    }
}

/// Waits for what somebody says who is refused whatever it is, if there is a place for that: who is answered before it has
/// written takes the answer for a broken connection.
async fn first_words<'a>(stream: &UnixStream, places: &'a Refusals) -> Option<SemaphorePermit<'a>> {
    let place = places.place()?;
    let words = async {
        loop {
            // The socket may be said to be readable too early.
            let _ = stream.readable().await;
            // Words that nobody has read reset the connection when it is closed.
            match stream.try_read(&mut [0; limits::HEAD_BYTES]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(limits::REFUSAL_TIME, words).await;
    Some(place)
}

/// What the peer does not take at once is lost: it is short, and the socket's buffer empty.
async fn answer_and_close(stream: &UnixStream, refusal: impl Future<Output = Error>) {
    let answer = async {
        let error = refusal.await;
        let status = StatusCode::from_u16(error.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = error.to_api();
        let body = serde_json::to_string(&error).unwrap_or_default();
        let id = error.request.map(|id| format!("{REQUEST_ID}: {id}\r\n"));
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n{body}",
            body.len(),
            id.unwrap_or_default()
        );
        let _ = stream.try_write(answer.as_bytes());
    };
    match id::new(Kind::Request) {
        Ok(id) => request::scope(id, answer).await,
        Err(_) => answer.await,
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // If the sender is gone, the daemon is ending too.
    let _ = stop.wait_for(|stop| *stop).await;
}
