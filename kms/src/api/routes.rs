//! The calls, as `types` lists them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body;
use super::types::{Attach, CreateDisk, Detach, RegisterInstance};
use crate::audit::{Caller, Decision};
use crate::catalogue::{Page, meta};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::limits;
use crate::operation::detach;
use crate::operation::disk_delete::DeleteDisk;
use crate::operation::instance_remove::RemoveInstance;
use crate::operation::kms_activate::Activate;
use crate::operation::{
    Kms, Operation, attachment_show, disk_show, instance_show, key_show, kms_status, run, usage_show,
};

/// The other side of a connection, as the kernel saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
}

type Kept = State<Arc<Kms>>;

/// All routes; every request is first given its [`Caller`], or refused.
pub(super) fn router(kms: Arc<Kms>) -> Router {
    Router::new()
        .route("/v1/kms", get(status))
        .route("/v1/kms/activate", post(activate))
        .route("/v1/keys", get(keys))
        .route("/v1/keys/{key}", get(key))
        .route("/v1/instances", get(instances).post(register_instance))
        .route("/v1/instances/{instance}", get(instance).delete(remove_instance))
        .route("/v1/disks", get(disks).post(create_disk))
        .route("/v1/disks/{disk}", get(disk).delete(delete_disk))
        .route("/v1/disks/{disk}/detach", post(detach_disk))
        .route("/v1/attachments", get(attachments).post(attach))
        .route("/v1/attachments/{attachment}", get(attachment))
        .route("/v1/usage", get(usage))
        .route("/v1/audit", get(audit))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&kms), identify))
        .with_state(kms)
}

async fn no_route() -> Error {
    Error::new(
        Code::NoSuchRoute,
        "there is no such call: see the documentation of the API",
    )
}

async fn no_method() -> Error {
    Error::new(
        Code::MethodNotAllowed,
        "the call does not know this method: see the documentation of the API",
    )
}

/// Finds the caller's account by its uid (`SO_PEERCRED`), and refuses those who have none.
async fn identify(State(kms): Kept, mut request: Request<Body>, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match caller(&kms, peer).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn caller(kms: &Kms, peer: Option<Peer>) -> Result<Caller> {
    let peer = peer.ok_or_else(|| Error::new(Code::Internal, "the caller is not known"))?;
    let account = {
        let mut db = kms.catalogue.read().await?;
        meta::account_of(&mut db, peer.uid).await?
    };
    let known = account.is_some();
    let caller = Caller {
        account: account.unwrap_or_default(),
        uid: peer.uid,
        pid: peer.pid,
        request: id::new(Kind::Request)?,
    };
    if known {
        return Ok(caller);
    }
    let text = format!(
        "uid {} belongs to no account: call as the user that ran `sealblk-kms init`",
        peer.uid
    );
    let refusal = Error::new(Code::NotAuthorized, text);
    kms.record(&caller, "api", "caller", Decision::Refused(&refusal))
        .await?;
    Err(refusal)
}

/// The request's caller, as an argument of a handler.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Error::new(Code::Internal, "the caller is not known"))
    }
}

/// The one name or id in a path.
struct Wanted(String);

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(wanted) = path.map_err(|error| {
            Error::new(
                Code::InvalidRequest,
                format!("the path cannot be understood: {error}"),
            )
        })?;
        Ok(Wanted(wanted))
    }
}

/// `?after=…&limit=…`, and nothing else.
struct Paging {
    after: Option<String>,
    limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let invalid = |why: String| Error::new(Code::InvalidRequest, why);
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Query(mut query) =
            query.map_err(|error| invalid(format!("the query cannot be understood: {error}")))?;
        let after = query.remove("after");
        let limit = match query.remove("limit") {
            None => limits::PAGE_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=limits::PAGE_MOST).contains(&limit) => limit,
                _ => {
                    return Err(invalid(format!(
                        "limit is a number from 1 to {}",
                        limits::PAGE_MOST
                    )));
                }
            },
        };
        match query.keys().next() {
            Some(other) => Err(invalid(format!("there is no parameter {other:?}"))),
            None => Ok(Paging { after, limit }),
        }
    }
}

impl From<Paging> for Page {
    fn from(paging: Paging) -> Self {
        Page {
            after: paging.after.unwrap_or_default(),
            limit: paging.limit,
        }
    }
}

fn ok<T: Serialize>(value: &T) -> Response {
    body::json(StatusCode::OK, value)
}

/// Parses the body and runs the call that it is.
async fn run_body<O>(kms: &Arc<Kms>, caller: Caller, request: Request<Body>) -> Result<Response>
where
    O: Operation + DeserializeOwned,
    O::Answer: Serialize,
{
    let operation: O = body::read(request).await?;
    let answer = run(kms, caller, operation).await?;
    Ok(body::json(StatusCode::CREATED, &answer))
}

async fn status(State(kms): Kept, caller: Caller) -> Result<Response> {
    Ok(ok(&kms_status::kms_status(&kms, &caller).await?))
}

/// A body without fields.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn activate(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(&kms, caller, Activate).await?))
}

async fn keys(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&key_show::list(&kms, &caller, &paging.into()).await?))
}

async fn key(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&key_show::show(&kms, &caller, &wanted.0).await?))
}

async fn instances(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&instance_show::list(&kms, &caller, &paging.into()).await?))
}

async fn instance(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&instance_show::show(&kms, &caller, &wanted.0).await?))
}

async fn register_instance(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<RegisterInstance>(&kms, caller, request).await
}

async fn remove_instance(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(
        &run(&kms, caller, RemoveInstance { instance: wanted.0 }).await?
    ))
}

async fn disks(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&disk_show::list(&kms, &caller, &paging.into()).await?))
}

async fn disk(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&disk_show::show(&kms, &caller, &wanted.0).await?))
}

async fn create_disk(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<CreateDisk>(&kms, caller, request).await
}

async fn delete_disk(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&run(&kms, caller, DeleteDisk { disk: wanted.0 }).await?))
}

async fn attach(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<Attach>(&kms, caller, request).await
}

async fn attachments(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&attachment_show::list(&kms, &caller, &paging.into()).await?))
}

async fn attachment(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&attachment_show::show(&kms, &caller, &wanted.0).await?))
}

async fn detach_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Detach = body::read(request).await?;
    Ok(ok(&run(
        &kms,
        caller,
        detach::Detach {
            disk: wanted.0,
            options,
        },
    )
    .await?))
}

async fn usage(State(kms): Kept, caller: Caller) -> Result<Response> {
    Ok(ok(&usage_show::usage(&kms, &caller).await?))
}

async fn audit(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    let after = paging.after.as_deref().unwrap_or("0").parse();
    let after = after.map_err(|_| Error::new(Code::InvalidRequest, "after is the seq of a record"))?;
    Ok(ok(&usage_show::audit(&kms, &caller, after, paging.limit).await?))
}
