//! Reading a request's body, and writing answers.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};
use crate::limits;

/// What a call gets that came without a body.
pub(super) const NOTHING: Bytes = Bytes::from_static(b"{}");

/// A body, which is declared as JSON.
///
/// # Errors
/// [`Code::BodyTooLarge`], [`Code::RequestTimeout`], [`Code::UnsupportedMediaType`].
pub(super) async fn bytes(headers: &HeaderMap, body: Body) -> Result<Bytes> {
    let bytes = tokio::time::timeout(
        limits::REQUEST_READ_TIME,
        Limited::new(body, limits::BODY_BYTES).collect(),
    )
    .await
    .map_err(|_| Error::new(Code::RequestTimeout, "the request's body did not arrive in time"))?
    .map_err(|error| {
        if error.is::<LengthLimitError>() {
            let text = format!("a request's body has at most {} bytes", limits::BODY_BYTES);
            return Error::new(Code::BodyTooLarge, text);
        }
        Error::new(
            Code::InvalidRequest,
            format!("the request's body did not arrive: {error}"),
        )
    })?
    .to_bytes();
    if bytes.is_empty() {
        return Ok(NOTHING);
    }
    check_type(headers)?;
    Ok(bytes)
}

/// # Errors
/// [`Code::InvalidRequest`].
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        Error::because(
            Code::InvalidRequest,
            "the request's body cannot be understood",
            error,
        )
    })
}

fn check_type(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::new(
        Code::UnsupportedMediaType,
        "send the body as JSON, with `Content-Type: application/json`",
    ))
}

/// An answer with this status.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = (status, bytes).into_response();
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, &self.to_api())
    }
}
