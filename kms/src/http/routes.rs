//! The router: every call of the list.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, on};
use sealblk_api::call::{Call, Method};
use sealblk_api::{calls, for_each_call};

use super::admission::identify;
use super::handler::{Handle, serve};
use crate::context::Kms;
use crate::error::{Code, Error};

macro_rules! routes {
    ($($call:ident,)*) => {
        Router::new()$(.route(calls::$call::SPEC.path, route::<calls::$call>()))*
    };
}

/// All routes; every request is first given its [`Caller`](crate::audit::Caller), or refused.
pub(crate) fn router(kms: Arc<Kms>) -> Router {
    for_each_call!(routes)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&kms), identify))
        .with_state(kms)
}

fn route<C: Handle>() -> MethodRouter<Arc<Kms>> {
    let method = match C::SPEC.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    };
    on(method, serve::<C>)
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
