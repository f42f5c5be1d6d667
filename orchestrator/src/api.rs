//! HTTP for people and programs: JSON under `/api/v1`, one file a resource, one error type, one bearer token.

use std::sync::Arc;

use aizen_protocol::id::Digest;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use crate::app::App;
use crate::clock;

pub(crate) mod approvals;
mod audit;
pub(crate) mod cases;
pub(crate) mod devices;
mod error;
mod proposals;
mod tokens;

pub(crate) use error::ApiError;

/// Script, manifest and intent of one proposal, with room for JSON's escapes.
const BODY: usize = 1 << 20;
/// Rows that a list gives at most.
const ROWS: u32 = 500;

/// The people's API.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/tokens", post(tokens::create))
        .route("/devices", get(devices::list))
        .route("/devices/{id}", get(devices::show))
        .route("/cases", get(cases::list))
        .route("/cases/{id}", get(cases::show))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", get(approvals::show))
        .route("/approvals/{id}/signatures", post(approvals::sign))
        .route("/approvals/{id}/deny", post(approvals::deny))
        .route("/proposals", post(proposals::create))
        .route("/audit", get(audit::list))
        .route("/audit/verify", get(audit::verify))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(app.clone(), require_token))
        // Without a token: whoever watches the service asks this.
        .route("/health", get(health))
}

async fn require_token(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or(ApiError::NoToken)?;
    if same(&Digest::of(token.trim().as_bytes()), &app.admin) {
        Ok(next.run(request).await)
    } else {
        Err(ApiError::WrongToken)
    }
}

/// Compares in constant time: every byte is looked at, and the bytes are digests that nobody can steer.
fn same(a: &Digest, b: &Digest) -> bool {
    a.0.iter().zip(&b.0).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

async fn unknown() -> ApiError {
    ApiError::NoSuchPath
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    now: jiff::Timestamp,
}

async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        now: clock::now(),
    })
}
