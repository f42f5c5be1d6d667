//! Whether a change is kept: the script succeeded, the probes hold, and somebody says so over the changed network.
//!
//! Nothing signed before the change was applied can confirm it: the executor draws a fresh [`Nonce`] then, and the
//! statement must contain it.

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::Digest;
use aizen_protocol::reason::Reason;
use aizen_protocol::statement::{Confirmation, Nonce};
use aizen_protocol::trust::{Role, TrustDocument};
use aizen_protocol::{limit, strict};
use jiff::Timestamp;

use crate::change::ConfirmedBy;
use crate::control::{Access, Peer};

pub mod deadline;
pub mod health;
pub mod probe;

/// A confirmation that was checked. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    by: ConfirmedBy,
}

impl Confirmed {
    /// Who confirmed.
    #[must_use]
    pub fn by(&self) -> &ConfirmedBy {
        &self.by
    }
}

/// Why a confirmation is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotConfirmed {
    /// The statement is not signed by an orchestrator that the device trusts, or not in form.
    #[error("the confirmation is not valid: {0}")]
    Statement(Reason),
    /// It is about another change, another package, or made before this one was applied.
    #[error("the confirmation is for something else or made before the change was applied")]
    OtherChange,
    /// The script has not ended yet.
    #[error("the change is not applied yet: wait until it asks for its confirmation")]
    TooEarly,
    /// The package says another way of confirming.
    #[error(
        "the package says that this change is confirmed in the other way (uplink or on the spot)"
    )]
    OtherWay,
    /// The peer is neither root nor an operator.
    #[error("only root and members of aizen-operators confirm on the spot")]
    NotAnOperator,
    /// The peer is the process that asked for the change.
    #[error(
        "the process that asked for the change can't confirm it: log in anew and confirm from there"
    )]
    SameProcess,
}

/// Draws a nonce.
///
/// # Errors
/// What the system says when it has no randomness.
pub fn nonce() -> Result<Nonce, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Nonce(Digest(bytes)))
}

/// Checks the orchestrator's signed confirmation against what was asked for.
///
/// # Errors
/// [`NotConfirmed::Statement`] or [`NotConfirmed::OtherChange`].
pub fn by_statement(
    statement: &Envelope,
    wanted: &Confirmation,
    trust: &TrustDocument,
    now: Timestamp,
) -> Result<Confirmed, NotConfirmed> {
    let opened = statement
        .open(PayloadType::Confirm, trust.signers())
        .map_err(NotConfirmed::Statement)?;
    if !opened
        .signers()
        .iter()
        .any(|id| trust.authorised(id, Role::Orchestrator, now).is_some())
    {
        return Err(NotConfirmed::Statement(Reason::KeyNotAuthorised));
    }
    let said: Confirmation = strict::from_slice(opened.payload(), limit::ENVELOPE)
        .map_err(|_| NotConfirmed::Statement(Reason::MalformedPayload))?;
    if said == *wanted {
        Ok(Confirmed {
            by: ConfirmedBy::Uplink,
        })
    } else {
        Err(NotConfirmed::OtherChange)
    }
}

/// Checks who confirms on the spot: root or an operator, from another process than the one that asked for the change.
///
/// # Errors
/// [`NotConfirmed::NotAnOperator`] or [`NotConfirmed::SameProcess`].
pub fn on_site(peer: &Peer, asked_by: Option<i32>) -> Result<Confirmed, NotConfirmed> {
    if !peer.may(Access::Operator, None) {
        return Err(NotConfirmed::NotAnOperator);
    }
    // Without a process id nobody can be told apart from the one that asked.
    if peer.pid.is_none() || peer.pid == asked_by {
        return Err(NotConfirmed::SameProcess);
    }
    Ok(Confirmed {
        by: ConfirmedBy::OnSite { uid: peer.uid },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::fixture::{Fixture, now};

    fn wanted() -> Confirmation {
        Confirmation {
            device: "dev-1".parse().unwrap(),
            package: Digest::of(b"package"),
            change: "chg-1".parse().unwrap(),
            nonce: nonce().unwrap(),
        }
    }

    fn says(confirmation: &Confirmation, key: &aizen_protocol::key::PrivateKey) -> Envelope {
        let payload = serde_json::to_vec(confirmation).unwrap();
        Envelope::sign(PayloadType::Confirm, &payload, &[key])
    }

    #[test]
    fn the_orchestrators_word_about_exactly_this_change_confirms_it() {
        let fixture = Fixture::new();
        let wanted = wanted();
        let statement = says(&wanted, &fixture.orchestrator);
        let confirmed = by_statement(&statement, &wanted, &fixture.trust, now()).unwrap();
        assert_eq!(confirmed.by(), &ConfirmedBy::Uplink);
    }

    #[test]
    fn nothing_that_was_signed_before_confirms() {
        let fixture = Fixture::new();
        let wanted = wanted();
        let earlier = Confirmation {
            nonce: nonce().unwrap(),
            ..wanted.clone()
        };
        let other = Confirmation {
            change: "chg-2".parse().unwrap(),
            ..wanted.clone()
        };
        let device = Confirmation {
            device: "dev-2".parse().unwrap(),
            ..wanted.clone()
        };
        for statement in [earlier, other, device] {
            assert_eq!(
                by_statement(
                    &says(&statement, &fixture.orchestrator),
                    &wanted,
                    &fixture.trust,
                    now()
                ),
                Err(NotConfirmed::OtherChange)
            );
        }
    }

    #[test]
    fn an_approver_a_stranger_or_another_payload_type_does_not_confirm() {
        let fixture = Fixture::new();
        let wanted = wanted();
        assert_eq!(
            by_statement(
                &says(&wanted, &fixture.approver),
                &wanted,
                &fixture.trust,
                now()
            ),
            Err(NotConfirmed::Statement(Reason::KeyNotAuthorised))
        );
        assert_eq!(
            by_statement(
                &says(&wanted, &fixture.stranger),
                &wanted,
                &fixture.trust,
                now()
            ),
            Err(NotConfirmed::Statement(Reason::BadSignature))
        );
        let payload = serde_json::to_vec(&wanted).unwrap();
        let delivery = Envelope::sign(PayloadType::Delivery, &payload, &[&fixture.orchestrator]);
        assert_eq!(
            by_statement(&delivery, &wanted, &fixture.trust, now()),
            Err(NotConfirmed::Statement(Reason::WrongPayloadType))
        );
    }

    #[test]
    fn on_the_spot_only_another_process_of_root_or_an_operator_confirms() {
        let root = |pid| Peer {
            uid: 0,
            gid: 0,
            pid,
        };
        assert!(on_site(&root(Some(7)), Some(6)).is_ok());
        assert!(on_site(&root(Some(7)), None).is_ok());
        assert_eq!(
            on_site(&root(Some(7)), Some(7)),
            Err(NotConfirmed::SameProcess)
        );
        assert_eq!(on_site(&root(None), None), Err(NotConfirmed::SameProcess));
        let stranger = Peer {
            uid: 65_000,
            gid: 65_000,
            pid: Some(7),
        };
        assert_eq!(
            on_site(&stranger, Some(6)),
            Err(NotConfirmed::NotAnOperator)
        );
    }
}
