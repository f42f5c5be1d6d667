//! Questions to people: shown with the effect, answered with a signature or a reason.

use std::sync::Arc;

use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::ApprovalId;
use aizen_protocol::key::PublicKey;
use aizen_protocol::package::Package;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{ApiError, ROWS};
use crate::app::App;
use crate::approve::{self, ApproveError, Counted};
use crate::clock;
use crate::store::approvals::Approval;
use crate::store::{StoreError, approvals, devices, proposals};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    #[serde(default)]
    all: bool,
}

/// One question with what a person must know to answer it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Shown {
    /// The question itself.
    #[serde(flatten)]
    pub(crate) approval: Approval,
    /// The package in the envelope, parsed for reading; what is signed are the envelope's bytes.
    pub(crate) package: Option<Package>,
    /// The script as text.
    pub(crate) script: Option<String>,
    /// The effect as the device signed it; of one question alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rehearsed: Option<Envelope>,
    /// The key with which the device signs, as this server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_key: Option<PublicKey>,
}

fn shown(approval: Approval) -> Shown {
    let payload = approval.envelope.unverified_payload().ok();
    let package = payload.and_then(|payload| Package::parse(&payload).ok());
    let script = package.as_ref().and_then(|p| p.script.bytes().ok());
    Shown {
        script: script.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        package,
        approval,
        rehearsed: None,
        device_key: None,
    }
}

/// Questions, newest first.
#[derive(Deserialize, Serialize)]
pub(crate) struct List {
    pub(crate) approvals: Vec<Shown>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List>, ApiError> {
    let Query(filter) = filter?;
    let rows = app
        .store
        .transact::<_, StoreError, _>(move |tx| approvals::newest(tx, !filter.all, ROWS))
        .await?;
    Ok(Json(List {
        approvals: rows.into_iter().map(shown).collect(),
    }))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, ApiError> {
    let id = named(&id)?;
    let question = app
        .store
        .transact(move |tx| {
            let approval =
                approvals::by_id(tx, &id)?.ok_or(ApiError::Approve(ApproveError::Unknown(id)))?;
            let device = devices::by_id(tx, &approval.device)?;
            Ok::<_, ApiError>(Shown {
                rehearsed: proposals::effect_envelope(tx, &approval.proposal)?,
                device_key: device.map(|device| device.result_key),
                ..shown(approval)
            })
        })
        .await?;
    Ok(Json(question))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    /// 64 bytes in base64, over the pre-authentication encoding of the envelope.
    signature: String,
}

pub(super) async fn sign(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    body: Result<Json<Signature>, JsonRejection>,
) -> Result<Json<Counted>, ApiError> {
    let Json(Signature { signature }) = body?;
    let id = named(&id)?;
    let bytes: Option<[u8; 64]> = STANDARD
        .decode(signature)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let signature = bytes.ok_or_else(|| ApiError::Field {
        field: "signature",
        problem: "must be 64 bytes in base64".into(),
    })?;
    let (work, now) = (app.clone(), clock::now());
    let counted = app
        .store
        .transact(move |tx| approve::sign(tx, &work, &id, &signature, now))
        .await?;
    app.presence.wake(&counted.device);
    Ok(Json(counted))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Denial {
    reason: String,
}

#[derive(Serialize)]
pub(super) struct Denied {
    id: ApprovalId,
    state: &'static str,
}

pub(super) async fn deny(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    body: Result<Json<Denial>, JsonRejection>,
) -> Result<Json<Denied>, ApiError> {
    let Json(Denial { reason }) = body?;
    let id = named(&id)?;
    let (denied, now) = (id.clone(), clock::now());
    app.store
        .transact(move |tx| approve::deny(tx, &denied, &reason, now))
        .await?;
    Ok(Json(Denied {
        id,
        state: "denied",
    }))
}

fn named(id: &str) -> Result<ApprovalId, ApiError> {
    id.parse().map_err(|_| ApiError::Unknown {
        kind: "approval",
        id: id.to_owned(),
    })
}
