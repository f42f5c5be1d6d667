//! One-time tokens for enrollment.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::app::App;
use crate::clock;
use crate::enroll::{TokenError, create_token};

const LONGEST_S: u64 = 30 * 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    ttl_s: u64,
}

#[derive(Serialize)]
pub(super) struct Created {
    token: String,
    expires_at: Timestamp,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Created>, ApiError> {
    let Json(Wanted { ttl_s }) = body?;
    if !(1..=LONGEST_S).contains(&ttl_s) {
        return Err(ApiError::Field {
            field: "ttl_s",
            problem: format!("must be 1 to {LONGEST_S} seconds"),
        });
    }
    let (work, now) = (app.clone(), clock::now());
    let (token, expires_at) = app
        .store
        .transact::<_, TokenError, _>(move |tx| {
            create_token(tx, &work, Duration::from_secs(ttl_s), now)
        })
        .await?;
    Ok(Json(Created { token, expires_at }))
}
