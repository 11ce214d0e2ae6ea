//! The calls on snapshots.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::Request;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};

use super::body;
use super::request::{IfMatch, Kept, Paging, Parameters, Wanted, change, ok, run_body, tag, tagged};
use super::types::CreateSnapshot;
use crate::audit::Caller;
use crate::error::{Error, Result};
use crate::operation::matching::Tagged;
use crate::operation::snapshot_copy::CopySnapshot;
use crate::operation::snapshot_delete::DeleteSnapshot;
use crate::operation::{Kms, run, snapshot_set, snapshot_show};

/// Their routes.
pub(super) fn router() -> Router<Arc<Kms>> {
    Router::new()
        .route("/v1/snapshots", get(snapshots).post(create_snapshot))
        .route(
            "/v1/snapshots/{snapshot}",
            get(snapshot).patch(set_snapshot).delete(delete_snapshot),
        )
        .route("/v1/snapshots/{snapshot}/copy", post(copy_snapshot))
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
