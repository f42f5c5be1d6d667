//! A person's own proposal for one device: it is rehearsed and approved like the expert's.

use std::sync::Arc;

use aizen_protocol::id::{CaseId, DeviceId, ProposalId};
use aizen_protocol::limit;
use aizen_protocol::package::Binding;
use aizen_protocol::package::manifest::{Class, Manifest};
use aizen_protocol::private::Text;
use aizen_protocol::proposal::Proposal;
use aizen_protocol::reason::Reason;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ApiError, devices::named};
use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::store::cases;
use crate::store::cases::{CaseRow, CaseState, Origin};
use crate::{clock, rehearse};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    device: DeviceId,
    intent: String,
    script: String,
    manifest: Manifest,
    #[serde(default)]
    bindings: Vec<Binding>,
}

#[derive(Serialize)]
pub(super) struct Created {
    case: CaseId,
    proposal: ProposalId,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Created>, ApiError> {
    let Json(wanted) = body?;
    check(&wanted)?;
    let (work, now) = (app.clone(), clock::now());
    let target = wanted.device.clone();
    let created = app
        .store
        .transact(move |tx| {
            let device = named(tx, wanted.device.as_str())?;
            let refusal = if work.signer.is_revoked(&device.device) {
                Some(Reason::Revoked)
            } else if !device.takes_changes && wanted.manifest.class != Class::Diagnose {
                Some(Reason::ObserveOnly)
            } else {
                None
            };
            if let Some(reason) = refusal {
                return Err(ApiError::TakesNoChanges {
                    device: device.device,
                    reason,
                });
            }
            let case = CaseRow {
                id: CaseId::fresh(),
                device: device.device.clone(),
                origin: Origin::Person,
                cause: "proposed_by_a_person".into(),
                component: wanted.intent.clone(),
                state: CaseState::Rehearsing,
                finding: None,
                note: String::new(),
                opened_at: now,
                seen_at: now,
                closed_at: None,
                settled_on_device_at: None,
                absent: 0,
            };
            cases::insert(tx, &case)?;
            let event = Event {
                kind: Kind::CaseOpened,
                device: Some(&device.device),
                case: Some(&case.id),
                detail: json!({ "cause": case.cause, "intent": wanted.intent }),
            };
            audit::append(tx, event, now)?;
            let proposal = Proposal {
                intent: Text(wanted.intent),
                script: wanted.script,
                manifest: wanted.manifest,
                bindings: wanted.bindings,
            };
            let proposal = rehearse::propose(tx, &device, &case.id, proposal, Vec::new(), now)?;
            Ok(Created {
                case: case.id,
                proposal,
            })
        })
        .await?;
    app.presence.wake(&target);
    Ok(Json(created))
}

fn check(wanted: &Wanted) -> Result<(), ApiError> {
    let field = |field, problem: String| Err(ApiError::Field { field, problem });
    if !(1..=limit::SENTENCE).contains(&wanted.intent.trim().len()) {
        return field(
            "intent",
            format!("must be one sentence of 1 to {} bytes", limit::SENTENCE),
        );
    }
    if !(1..=limit::SCRIPT).contains(&wanted.script.len()) {
        return field("script", format!("must be 1 to {} bytes", limit::SCRIPT));
    }
    if !wanted.manifest.is_bounded() {
        return field("manifest", "a list or number is out of its bounds".into());
    }
    if wanted.bindings.len() > limit::BINDINGS {
        return field("bindings", format!("at most {}", limit::BINDINGS));
    }
    Ok(())
}
