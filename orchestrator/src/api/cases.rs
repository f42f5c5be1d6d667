//! Cases, and everything that happened in one.

use std::sync::Arc;

use aizen_protocol::id::{CaseId, DeviceId};
use aizen_protocol::outcome::Outcome;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::{ApiError, ROWS};
use crate::app::App;
use crate::audit::{self, Entry};
use crate::store::approvals::Approval;
use crate::store::cases::CaseRow;
use crate::store::deliveries::DeliveryRow;
use crate::store::proposals::ProposalRow;
use crate::store::{StoreError, approvals, cases, deliveries, outcomes, proposals};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    device: Option<DeviceId>,
}

/// A case and one sentence about it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Summed {
    /// The case itself.
    #[serde(flatten)]
    pub(crate) case: CaseRow,
    /// What is wrong, or what a person proposed.
    pub(crate) summary: String,
}

impl Summed {
    fn of(case: CaseRow) -> Self {
        let found = case.finding.as_ref().map(|f| f.summary.0.clone());
        Self {
            summary: found.unwrap_or_else(|| case.component.clone()),
            case,
        }
    }
}

/// Cases, newest first.
#[derive(Deserialize, Serialize)]
pub(crate) struct List {
    pub(crate) cases: Vec<Summed>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List>, ApiError> {
    let Query(filter) = filter?;
    let cases = app
        .store
        .transact::<_, StoreError, _>(move |tx| cases::newest(tx, filter.device.as_ref(), ROWS))
        .await?;
    Ok(Json(List {
        cases: cases.into_iter().map(Summed::of).collect(),
    }))
}

#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    case: Summed,
    proposal: Option<ProposalRow>,
    approvals: Vec<Approval>,
    deliveries: Vec<DeliveryRow>,
    /// As signed by the device; every envelope was verified before it was stored.
    outcomes: Vec<Outcome>,
    timeline: Vec<Entry>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, ApiError> {
    app.store
        .transact(move |tx| {
            let unknown = || ApiError::Unknown {
                kind: "case",
                id: id.clone(),
            };
            let id: CaseId = id.parse().map_err(|_| unknown())?;
            let case = cases::by_id(tx, &id)?.ok_or_else(unknown)?;
            let signed = outcomes::of_case(tx, &id)?;
            let outcomes = signed
                .iter()
                .filter_map(|envelope| {
                    serde_json::from_slice(&envelope.unverified_payload().ok()?).ok()
                })
                .collect();
            Ok(Json(Shown {
                proposal: proposals::newest_of_case(tx, &id)?,
                approvals: approvals::of_case(tx, &id)?,
                deliveries: deliveries::of_case(tx, &id)?,
                outcomes,
                timeline: audit::entries(tx, Some(&id), 0, ROWS)?,
                case: Summed::of(case),
            }))
        })
        .await
}
