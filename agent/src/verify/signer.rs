//! Which roles signed, and whether those are the ones that this asks for.

use aizen_protocol::envelope::{Envelope, Opened, PayloadType};
use aizen_protocol::id::{Digest, KeyId};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::{Class, Risk};
use aizen_protocol::reason::Reason;
use aizen_protocol::statement::Delivery;
use aizen_protocol::trust::{Role, TrustDocument};
use aizen_protocol::{limit, strict};

use super::{Circumstances, Refused, freshness};

/// A person for what changes the device; the orchestrator alone for a diagnosis.
pub(super) fn of_package(
    package: &Package,
    opened: &Opened,
    trust: &TrustDocument,
    at: &Circumstances<'_>,
) -> Result<(), Refused> {
    let class = package.manifest.class;
    usable(trust, class == Class::Diagnose, at)?;
    if class == Class::Diagnose {
        let orchestrator = count(opened, trust, Role::Orchestrator, class, at);
        let approvers = count(opened, trust, Role::Approver, class, at);
        return if orchestrator + approvers > 0 {
            Ok(())
        } else {
            Err(Reason::KeyNotAuthorised.into())
        };
    }
    if !opened
        .signers()
        .iter()
        .any(|id| has_role(trust, id, Role::Approver))
    {
        return Err(Reason::ApproverMissing.into());
    }
    let approvers = count(opened, trust, Role::Approver, class, at);
    if approvers == 0 {
        return Err(Reason::KeyNotAuthorised.into());
    }
    let wanted = if package.manifest.risk() == Risk::High {
        usize::from(at.policy.approvers_for_high_risk.max(1))
    } else {
        1
    };
    if approvers < wanted {
        return Err(Refused::because(
            Reason::ApproverMissing,
            format!("{approvers} of {wanted} people signed"),
        ));
    }
    Ok(())
}

/// The orchestrator's key, whatever the class: a shadow changes nothing.
pub(super) fn of_rehearsal(
    opened: &Opened,
    trust: &TrustDocument,
    at: &Circumstances<'_>,
) -> Result<(), Refused> {
    // A shadow changes nothing, so an expired document still allows it, as it allows a diagnosis.
    usable(trust, true, at)?;
    let now = freshness::at_least(at);
    let by_orchestrator = |id: &KeyId| trust.authorised(id, Role::Orchestrator, now).is_some();
    if !opened.signers().iter().any(by_orchestrator) {
        return Err(Reason::KeyNotAuthorised.into());
    }
    Ok(())
}

/// The orchestrator's word that exactly this package is for this device, now.
pub(super) fn of_delivery(
    delivery: Option<&Envelope>,
    package: Digest,
    trust: &TrustDocument,
    at: &Circumstances<'_>,
) -> Result<(), Refused> {
    let missing = |detail: &str| Refused::because(Reason::DeliveryMissing, detail);
    let envelope = delivery.ok_or_else(|| missing("there is none"))?;
    let opened = envelope
        .open(PayloadType::Delivery, trust.signers())
        .map_err(|reason| missing(reason.code()))?;
    let statement: Delivery = strict::from_slice(opened.payload(), limit::ENVELOPE)
        .map_err(|_| missing(Reason::MalformedPayload.code()))?;
    let now = freshness::at_least(at);
    let by_orchestrator = opened
        .signers()
        .iter()
        .any(|id| trust.authorised(id, Role::Orchestrator, now).is_some());
    if !by_orchestrator {
        return Err(missing("it is not signed by the orchestrator"));
    }
    if statement.package != package {
        return Err(missing("it is for another package"));
    }
    if statement.device != *at.device {
        return Err(missing("it is for another device"));
    }
    if statement.deadline <= now {
        return Err(missing("its deadline has passed"));
    }
    Ok(())
}

fn usable(
    trust: &TrustDocument,
    changes_nothing: bool,
    at: &Circumstances<'_>,
) -> Result<(), Refused> {
    if trust.revoked.contains(at.device) {
        return Err(Reason::Revoked.into());
    }
    if trust.expires <= freshness::at_least(at) && !changes_nothing {
        return Err(Reason::TrustExpired.into());
    }
    Ok(())
}

fn has_role(trust: &TrustDocument, id: &KeyId, role: Role) -> bool {
    trust
        .keys
        .iter()
        .any(|key| key.role == role && key.key.id() == *id)
}

fn count(
    opened: &Opened,
    trust: &TrustDocument,
    role: Role,
    class: Class,
    at: &Circumstances<'_>,
) -> usize {
    opened
        .signers()
        .iter()
        .filter(|id| {
            trust
                .authorised(id, role, freshness::at_least(at))
                .is_some_and(|key| key.classes.contains(&class))
        })
        .count()
}
