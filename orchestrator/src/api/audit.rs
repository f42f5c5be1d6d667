//! The record, for reading and for verification.

use std::sync::Arc;

use aizen_protocol::id::Digest;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::{ApiError, ROWS};
use crate::app::App;
use crate::audit::{self, Entry, Verification};
use crate::store::StoreError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: i64,
}

#[derive(Serialize)]
pub(super) struct List {
    entries: Vec<Entry>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<List>, ApiError> {
    let Query(page) = page?;
    let entries = app
        .store
        .transact::<_, StoreError, _>(move |tx| audit::entries(tx, None, page.after, ROWS))
        .await?;
    Ok(Json(List { entries }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Against {
    head: Option<Digest>,
}

#[derive(Serialize)]
pub(super) struct Verified {
    intact: bool,
    #[serde(flatten)]
    found: Verification,
    /// A head from an earlier verification is still part of the chain; none if none was given.
    holds_head: Option<bool>,
}

pub(super) async fn verify(
    State(app): State<Arc<App>>,
    against: Result<Query<Against>, QueryRejection>,
) -> Result<Json<Verified>, ApiError> {
    let Query(Against { head }) = against?;
    let verified = app
        .store
        .transact::<_, StoreError, _>(move |tx| {
            let found = audit::verify(tx)?;
            let holds_head = head.map(|head| audit::holds(tx, head)).transpose()?;
            Ok(Verified {
                intact: found.broken_at.is_none() && holds_head != Some(false),
                found,
                holds_head,
            })
        })
        .await?;
    Ok(Json(verified))
}
