//! The calls, as `types` lists them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::{
    self, Attach, Check, CreateDisk, CreateSnapshot, Detach, RegisterInstance, Reinitialise, Resize, Rollback,
};
use super::{body, openapi};
use crate::audit::{Caller, Decision};
use crate::catalogue::{self, Page, meta};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::limits;
use crate::operation::account_credit::Credit;
use crate::operation::backend_restart::RestartBackend;
use crate::operation::backup_delete::DeleteBackup;
use crate::operation::disk_copy::{CancelCopy, CopyDisk};
use crate::operation::disk_delete::DeleteDisk;
use crate::operation::disk_export::ExportDisk;
use crate::operation::instance_remove::RemoveInstance;
use crate::operation::instance_set::SetInstance;
use crate::operation::kms_activate::Activate;
use crate::operation::kms_grant::{Grant, Revoke};
use crate::operation::matching::{Changes, Matching, Tagged, Tags};
use crate::operation::once::{self, Creates, Token};
use crate::operation::root_rotate::RotateRoot;
use crate::operation::snapshot_copy::CopySnapshot;
use crate::operation::snapshot_delete::DeleteSnapshot;
use crate::operation::{
    Kms, account_show, attachment_show, audit_verify, backup_restore, backup_show, detach, disk_check,
    disk_import, disk_reinit, disk_resize, disk_set, disk_show, instance_show, kms_status, rollback, run,
    snapshot_set, snapshot_show, usage_show,
};
use crate::role;

/// The other side of a connection, as the kernel saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
}

pub(super) type Kept = State<Arc<Kms>>;

/// All routes; every request is first given its [`Caller`], or refused.
pub(super) fn router(kms: Arc<Kms>) -> Router {
    Router::new()
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/kms", get(status))
        .route("/v1/kms/activate", post(activate))
        .route("/v1/kms/rotate-root", post(rotate_root))
        .route("/v1/kms/grant", post(grant))
        .route("/v1/kms/revoke", post(revoke))
        .route("/v1/profile", get(profile))
        .route("/v1/accounts", get(accounts))
        .route("/v1/accounts/{account}", get(account))
        .route("/v1/accounts/{account}/credit", post(credit_account))
        .merge(super::key_routes::router())
        .merge(super::image_routes::router())
        .route("/v1/instances", get(instances).post(register_instance))
        .route(
            "/v1/instances/{instance}",
            get(instance).patch(set_instance).delete(remove_instance),
        )
        .route("/v1/disks", get(disks).post(create_disk))
        .route("/v1/disks/{disk}", get(disk).patch(set_disk).delete(delete_disk))
        .route("/v1/disks/{disk}/detach", post(detach_disk))
        .route("/v1/disks/{disk}/restart", post(restart_backend))
        .route("/v1/disks/{disk}/rollback", post(rollback_disk))
        .route("/v1/disks/{disk}/reinit", post(reinit_disk))
        .route("/v1/disks/{disk}/resize", post(resize_disk))
        .route("/v1/disks/{disk}/copy", post(copy_disk))
        .route("/v1/disks/{disk}/copy/cancel", post(cancel_copy))
        .route("/v1/disks/{disk}/export", post(export_disk))
        .route("/v1/imports", post(import_disk))
        .route("/v1/backups", get(backups).post(create_backup))
        .route("/v1/backups/{backup}", get(backup).delete(delete_backup))
        .route("/v1/backups/{backup}/restore", post(restore_backup))
        .route("/v1/disks/{disk}/check", post(check_disk))
        .route("/v1/snapshots", get(snapshots).post(create_snapshot))
        .route(
            "/v1/snapshots/{snapshot}",
            get(snapshot).patch(set_snapshot).delete(delete_snapshot),
        )
        .route("/v1/snapshots/{snapshot}/copy", post(copy_snapshot))
        .route("/v1/attachments", get(attachments).post(attach))
        .route("/v1/attachments/{attachment}", get(attachment))
        .route("/v1/usage", get(usage))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/verify", get(verify_audit))
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

/// Finds the caller's account by its uid (`SO_PEERCRED`), and refuses those who have none, or not the role that the call
/// needs.
async fn identify(State(kms): Kept, mut request: Request<Body>, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    match admit(&kms, peer, &method, route.as_ref()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn admit(
    kms: &Kms,
    peer: Option<Peer>,
    method: &Method,
    route: Option<&MatchedPath>,
) -> Result<Caller> {
    let caller = caller(kms, peer).await?;
    // Who makes a call that there is not learns that, whatever the role.
    if let Some(route) = route {
        check_role(kms, &caller, method, route.as_str()).await?;
    }
    Ok(caller)
}

/// # Errors
/// [`Code::NotAuthorized`], or [`Code::NotSecurityAdministrator`] (rule K02).
async fn check_role(kms: &Kms, caller: &Caller, method: &Method, route: &str) -> Result<()> {
    let needed = role::needed(method.is_safe(), route);
    let held = {
        let mut db = kms.catalogue.read().await?;
        catalogue::accounts::roles(&mut db, caller.uid).await?
    };
    if needed
        .iter()
        .any(|role| held.iter().any(|held| held == role.name()))
    {
        return Ok(());
    }
    let names: Vec<_> = needed.iter().map(|role| role.name()).collect();
    let names = names.join(" or ");
    let text = format!(
        "uid {} of account {} needs the role {names}: ask somebody of the account who has it, or have the role added to \
         the accounts file",
        caller.uid, caller.account
    );
    let code = match route {
        "/v1/kms/grant" | "/v1/kms/revoke" => Code::NotSecurityAdministrator,
        _ => Code::NotAuthorized,
    };
    let refusal = Error::new(code, text);
    let call = format!("{method} {route}");
    kms.record(caller, "api", &call, Decision::Refused(&refusal))
        .await?;
    Err(refusal)
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
        "uid {} belongs to no account: call as the user that ran `sealblk-kms init`, or have it add the uid to the \
         accounts file",
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
pub(super) struct Wanted(pub(super) String);

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

/// The parameters of a request.
pub(super) struct Parameters(pub(super) HashMap<String, String>);

impl Parameters {
    pub(super) async fn of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Query(parameters) =
            query.map_err(|error| invalid(format!("the query cannot be understood: {error}")))?;
        Ok(Parameters(parameters))
    }

    /// `after=…&limit=…`, and nothing else that has not been taken.
    pub(super) fn paging(mut self) -> Result<Paging> {
        let after = self.0.remove("after");
        let limit = match self.0.remove("limit") {
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
        self.end()?;
        Ok(Paging { after, limit })
    }

    /// Nothing is left.
    fn end(self) -> Result<()> {
        match self.0.keys().next() {
            Some(other) => Err(invalid(format!("there is no parameter {other:?}"))),
            None => Ok(()),
        }
    }
}

fn invalid(why: String) -> Error {
    Error::new(Code::InvalidRequest, why)
}

/// `?after=…&limit=…`, and nothing else.
pub(super) struct Paging {
    after: Option<String>,
    limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Parameters::of(parts, state).await?.paging()
    }
}

/// `?disk=…` besides.
struct OfDisk(Option<String>, Paging);

impl<S: Send + Sync> FromRequestParts<S> for OfDisk {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let mut parameters = Parameters::of(parts, state).await?;
        let disk = parameters.0.remove("disk");
        Ok(OfDisk(disk, parameters.paging()?))
    }
}

/// `?head=…`, and nothing else.
struct OfHead(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for OfHead {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let mut parameters = Parameters::of(parts, state).await?;
        let head = parameters.0.remove("head");
        parameters.end()?;
        Ok(OfHead(head))
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

pub(super) fn ok<T: Serialize>(value: &T) -> Response {
    body::json(StatusCode::OK, value)
}

/// Parses the body and runs the call that it is, once for each `Idempotency-Key`.
pub(super) async fn run_body<O>(kms: &Arc<Kms>, caller: Caller, request: Request<Body>) -> Result<Response>
where
    O: Creates + DeserializeOwned,
    O::Answer: Serialize + Sync,
{
    let key = one_header(request.headers(), "idempotency-key")?;
    let bytes = body::bytes(request).await?;
    let operation: O = body::parse(&bytes)?;
    let Some(key) = key else {
        let answer = run(kms, caller, operation).await?;
        return Ok(body::json(StatusCode::CREATED, &answer));
    };
    let token = Token::new(&key, O::CALL, &body::parse(&bytes)?)?;
    let answer = once::run(kms, caller, operation, token).await?;
    Ok(body::json(StatusCode::CREATED, &answer))
}

/// Runs a call that changes an object, if the object is as `If-Match` says.
pub(super) async fn change<O>(kms: &Arc<Kms>, caller: Caller, tags: IfMatch, operation: O) -> Result<Response>
where
    O: Changes,
    O::Answer: Serialize,
{
    Ok(match tags.0 {
        None => ok(&run(kms, caller, operation).await?),
        Some(tags) => ok(&run(kms, caller, Matching { operation, tags }).await?),
    })
}

/// The value of a header that comes at most once.
fn one_header(headers: &HeaderMap, name: &'static str) -> Result<Option<String>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.to_owned())),
        _ => Err(invalid(format!(
            "give the header {name} once, in characters of ASCII"
        ))),
    }
}

/// The tags in `If-Match`.
pub(super) struct IfMatch(Option<Tags>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let header = one_header(&parts.headers, "if-match")?;
        Ok(IfMatch(header.as_deref().map(Tags::parse).transpose()?))
    }
}

/// An answer with the object's tag, which must have been read before the object: then it is never newer.
pub(super) fn tagged<T: Serialize>(tag: &str, value: &T) -> Response {
    let mut response = ok(value);
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

pub(super) async fn tag(kms: &Kms, caller: &Caller, kind: Tagged, wanted: &str) -> Result<String> {
    let mut db = kms.catalogue.read().await?;
    kind.tag(&mut db, caller, wanted).await
}

async fn openapi() -> Response {
    ok(&*openapi::DOCUMENT)
}

async fn status(State(kms): Kept, caller: Caller) -> Result<Response> {
    Ok(ok(&kms_status::kms_status(&kms, &caller).await?))
}

/// A body without fields.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

async fn activate(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(&kms, caller, Activate).await?))
}

async fn rotate_root(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(&kms, caller, RotateRoot::default()).await?))
}

async fn grant(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(&kms, caller, Grant).await?))
}

async fn revoke(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(&kms, caller, Revoke).await?))
}

async fn accounts(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&account_show::list(&kms, &caller, &paging.into()).await?))
}

async fn account(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&account_show::show(&kms, &caller, &wanted.0).await?))
}

async fn credit_account(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::Credit = body::read(request).await?;
    let account = wanted.0;
    Ok(ok(&run(&kms, caller, Credit { account, options }).await?))
}

async fn profile(State(kms): Kept) -> Response {
    ok(&types::Profile::from(kms.profile))
}

async fn instances(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&instance_show::list(&kms, &caller, &paging.into()).await?))
}

async fn instance(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let tag = tag(&kms, &caller, Tagged::Instance, &wanted.0).await?;
    Ok(tagged(
        &tag,
        &instance_show::show(&kms, &caller, &wanted.0).await?,
    ))
}

async fn register_instance(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<RegisterInstance>(&kms, caller, request).await
}

async fn remove_instance(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    wanted: Wanted,
) -> Result<Response> {
    let instance = wanted.0;
    change(&kms, caller, tags, RemoveInstance { instance }).await
}

async fn set_instance(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let instance = wanted.0;
    change(&kms, caller, tags, SetInstance { instance, options }).await
}

async fn disks(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&disk_show::list(&kms, &caller, &paging.into()).await?))
}

async fn disk(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let tag = tag(&kms, &caller, Tagged::Disk, &wanted.0).await?;
    Ok(tagged(&tag, &disk_show::show(&kms, &caller, &wanted.0).await?))
}

async fn create_disk(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<CreateDisk>(&kms, caller, request).await
}

async fn delete_disk(State(kms): Kept, caller: Caller, tags: IfMatch, wanted: Wanted) -> Result<Response> {
    let disk = wanted.0;
    change(&kms, caller, tags, DeleteDisk { disk }).await
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

async fn restart_backend(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, RestartBackend { disk }).await?))
}

async fn rollback_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Rollback = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, rollback::Rollback { disk, options }).await?))
}

async fn reinit_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Reinitialise = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(
        &kms,
        caller,
        disk_reinit::Reinitialise { disk, options },
    )
    .await?))
}

async fn resize_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Resize = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(
        &run(&kms, caller, disk_resize::Resize { disk, options }).await?
    ))
}

async fn copy_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::CopyDisk = body::read(request).await?;
    let disk = wanted.0;
    let begun = run(&kms, caller, CopyDisk { disk, options }).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn export_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::ExportDisk = body::read(request).await?;
    let disk = wanted.0;
    let begun = run(&kms, caller, ExportDisk { disk, options }).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn import_disk(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let wanted: types::ImportDisk = body::read(request).await?;
    let begun = disk_import::import(&kms, caller, wanted).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn backups(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&backup_show::list(&kms, &caller, &paging.into()).await?))
}

async fn backup(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&backup_show::show(&kms, &caller, &wanted.0).await?))
}

async fn create_backup(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let wanted: types::CreateBackup = body::read(request).await?;
    Ok(body::json(
        StatusCode::ACCEPTED,
        &run(&kms, caller, wanted).await?,
    ))
}

async fn restore_backup(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::RestoreBackup = body::read(request).await?;
    let begun = backup_restore::restore(&kms, caller, &wanted.0, options.disk).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn delete_backup(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let backup = wanted.0;
    Ok(ok(&run(&kms, caller, DeleteBackup { backup }).await?))
}

async fn cancel_copy(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, CancelCopy { disk }).await?))
}

async fn check_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Check = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, disk_check::Check { disk, options }).await?))
}

async fn snapshots(State(kms): Kept, caller: Caller, OfDisk(disk, paging): OfDisk) -> Result<Response> {
    Ok(ok(&snapshot_show::list(
        &kms,
        &caller,
        disk.as_deref(),
        &paging.into(),
    )
    .await?))
}

async fn snapshot(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let tag = tag(&kms, &caller, Tagged::Snapshot, &wanted.0).await?;
    Ok(tagged(
        &tag,
        &snapshot_show::show(&kms, &caller, &wanted.0).await?,
    ))
}

async fn create_snapshot(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<CreateSnapshot>(&kms, caller, request).await
}

async fn set_disk(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let disk = wanted.0;
    change(&kms, caller, tags, disk_set::SetDisk { disk, options }).await
}

async fn set_snapshot(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let snapshot = wanted.0;
    change(
        &kms,
        caller,
        tags,
        snapshot_set::SetSnapshot { snapshot, options },
    )
    .await
}

async fn copy_snapshot(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let snapshot = wanted.0;
    Ok(ok(&run(&kms, caller, CopySnapshot { snapshot, options }).await?))
}

async fn delete_snapshot(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    wanted: Wanted,
) -> Result<Response> {
    let snapshot = wanted.0;
    change(&kms, caller, tags, DeleteSnapshot { snapshot }).await
}

async fn usage(State(kms): Kept, caller: Caller) -> Result<Response> {
    Ok(ok(&usage_show::usage(&kms, &caller).await?))
}

async fn audit(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    let after = paging.after.as_deref().unwrap_or("0").parse();
    let after = after.map_err(|_| Error::new(Code::InvalidRequest, "after is the seq of a record"))?;
    Ok(ok(&usage_show::audit(&kms, &caller, after, paging.limit).await?))
}

async fn verify_audit(State(kms): Kept, _: Caller, OfHead(noted): OfHead) -> Result<Response> {
    Ok(ok(&audit_verify::verify(&kms, noted.as_deref()).await?))
}
