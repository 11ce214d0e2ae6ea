//! The calls, as `types` lists them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::Request;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};

use super::admission::identify;
use super::request::{IfMatch, Kept, Nothing, Paging, Parameters, Wanted, change, ok, run_body, tag, tagged};
use super::types::{self, RegisterInstance};
use super::{body, openapi};
use crate::audit::Caller;
use crate::error::{Code, Error, Result};
use crate::operation::account_credit::Credit;
use crate::operation::audit_archive::{self, Archive};
use crate::operation::instance_remove::RemoveInstance;
use crate::operation::instance_set::SetInstance;
use crate::operation::kms_activate::Activate;
use crate::operation::kms_grant::{Grant, Revoke};
use crate::operation::matching::Tagged;
use crate::operation::root_rotate::RotateRoot;
use crate::operation::{Kms, account_show, audit_verify, instance_show, kms_status, run, usage_show};

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
        .merge(super::disk_routes::router())
        .merge(super::snapshot_routes::router())
        .route("/v1/instances", get(instances).post(register_instance))
        .route(
            "/v1/instances/{instance}",
            get(instance).patch(set_instance).delete(remove_instance),
        )
        .route("/v1/usage", get(usage))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/verify", get(verify_audit))
        .route("/v1/audit/archive", get(audit_to_archive).post(archive_audit))
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

async fn openapi() -> Response {
    ok(&*openapi::DOCUMENT)
}

async fn status(State(kms): Kept, caller: Caller) -> Result<Response> {
    Ok(ok(&kms_status::kms_status(&kms, &caller).await?))
}

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

async fn usage(State(kms): Kept, caller: Caller) -> Result<Response> {
    Ok(ok(&usage_show::usage(&kms, &caller).await?))
}

async fn audit(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    let after = record(&paging)?;
    Ok(ok(&usage_show::audit(&kms, &caller, after, paging.limit).await?))
}

/// The record that a page follows.
fn record(paging: &Paging) -> Result<u64> {
    let after = paging.after.as_deref().unwrap_or("0").parse();
    after.map_err(|_| Error::new(Code::InvalidRequest, "after is the seq of a record"))
}

async fn audit_to_archive(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    let after = record(&paging)?;
    Ok(ok(&audit_archive::page(&kms, &caller, after, paging.limit).await?))
}

async fn archive_audit(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let options: types::ArchiveAudit = body::read(request).await?;
    Ok(ok(&run(&kms, caller, Archive::new(&options)?).await?))
}

async fn verify_audit(State(kms): Kept, _: Caller, OfHead(noted): OfHead) -> Result<Response> {
    Ok(ok(&audit_verify::verify(&kms, noted.as_deref()).await?))
}
