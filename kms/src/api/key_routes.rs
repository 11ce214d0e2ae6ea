//! The calls on keys.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use super::body;
use super::request::{IfMatch, Kept, Nothing, Paging, Wanted, change, ok, run_body, tag, tagged};
use super::types;
use crate::audit::Caller;
use crate::error::Result;
use crate::operation::key_deletion::{CancelDeletion, ScheduleDeletion};
use crate::operation::key_enable::{Disable, Enable};
use crate::operation::key_import::{AskImport, Import};
use crate::operation::key_rewrap::{self, Rewrap};
use crate::operation::key_rotate::Rotate;
use crate::operation::key_set::SetKey;
use crate::operation::matching::Tagged;
use crate::operation::{Kms, Operation, key_resources, key_show, run};

/// Their routes.
pub(super) fn router() -> Router<Arc<Kms>> {
    Router::new()
        .route("/v1/keys", get(list).post(create))
        .route("/v1/keys/{key}", get(show).patch(set))
        .route("/v1/keys/{key}/enable", post(enable))
        .route("/v1/keys/{key}/disable", post(disable))
        .route("/v1/keys/{key}/schedule-deletion", post(schedule_deletion))
        .route("/v1/keys/{key}/cancel-deletion", post(cancel_deletion))
        .route("/v1/keys/{key}/rotate", post(rotate))
        .route("/v1/keys/{key}/rewrap", get(rewrapping).post(rewrap))
        .route("/v1/keys/{key}/import-params", post(ask_import))
        .route("/v1/keys/{key}/import", post(import))
        .route("/v1/keys/{key}/resources", get(resources))
}

async fn list(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&key_show::list(&kms, &caller, &paging.into()).await?))
}

async fn show(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let tag = tag(&kms, &caller, Tagged::Key, &wanted.0).await?;
    Ok(tagged(&tag, &key_show::show(&kms, &caller, &wanted.0).await?))
}

async fn create(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<types::CreateKey>(&kms, caller, request).await
}

async fn set(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    Wanted(key): Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    change(&kms, caller, tags, SetKey { key, options }).await
}

async fn enable(State(kms): Kept, caller: Caller, key: Wanted, request: Request<Body>) -> Result<Response> {
    run_empty(&kms, caller, request, Enable { key: key.0 }).await
}

async fn disable(State(kms): Kept, caller: Caller, key: Wanted, request: Request<Body>) -> Result<Response> {
    run_empty(&kms, caller, request, Disable { key: key.0 }).await
}

async fn schedule_deletion(
    State(kms): Kept,
    caller: Caller,
    key: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let operation = ScheduleDeletion { key: key.0, options };
    Ok(ok(&run(&kms, caller, operation).await?))
}

async fn cancel_deletion(
    State(kms): Kept,
    caller: Caller,
    key: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    run_empty(&kms, caller, request, CancelDeletion { key: key.0 }).await
}

async fn rotate(State(kms): Kept, caller: Caller, key: Wanted, request: Request<Body>) -> Result<Response> {
    run_empty(&kms, caller, request, Rotate { key: key.0 }).await
}

async fn rewrapping(State(kms): Kept, caller: Caller, key: Wanted) -> Result<Response> {
    Ok(ok(&key_rewrap::status(&kms, &caller, &key.0).await?))
}

async fn rewrap(State(kms): Kept, caller: Caller, key: Wanted, request: Request<Body>) -> Result<Response> {
    run_empty(&kms, caller, request, Rewrap { key: key.0 }).await
}

async fn ask_import(
    State(kms): Kept,
    caller: Caller,
    key: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    run_empty(&kms, caller, request, AskImport { key: key.0 }).await
}

async fn import(State(kms): Kept, caller: Caller, key: Wanted, request: Request<Body>) -> Result<Response> {
    let options = body::read(request).await?;
    let operation = Import {
        key: key.0,
        options,
        opened: None,
    };
    Ok(ok(&run(&kms, caller, operation).await?))
}

async fn resources(State(kms): Kept, caller: Caller, key: Wanted, paging: Paging) -> Result<Response> {
    let page = paging.into();
    Ok(ok(&key_resources::list(&kms, &caller, &key.0, &page).await?))
}

/// Runs a call whose body has no fields.
async fn run_empty<O>(
    kms: &Arc<Kms>,
    caller: Caller,
    request: Request<Body>,
    operation: O,
) -> Result<Response>
where
    O: Operation,
    O::Answer: Serialize,
{
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(kms, caller, operation).await?))
}
