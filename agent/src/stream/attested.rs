//! What the spool takes beside sanitized records: envelopes that this device's executor signed.

use std::iter;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::key::PublicKey;
use aizen_protocol::reason::Reason;

/// An effect or an outcome with the executor's signature: it was sanitized before it was signed.
#[derive(Clone, Debug)]
pub struct Attested(Envelope);

impl Attested {
    /// Takes an envelope that `result_key` signed as an effect or as an outcome.
    ///
    /// # Errors
    /// [`Reason::WrongPayloadType`] for anything else; otherwise as [`Envelope::open`].
    pub fn check(envelope: Envelope, result_key: &PublicKey) -> Result<Self, Reason> {
        let wanted = [PayloadType::Effect, PayloadType::Outcome]
            .into_iter()
            .find(|kind| kind.as_str() == envelope.payload_type())
            .ok_or(Reason::WrongPayloadType)?;
        envelope.open(wanted, iter::once(result_key))?;
        Ok(Self(envelope))
    }

    /// The envelope.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::key::PrivateKey;

    use super::*;

    #[test]
    fn only_effects_and_outcomes_that_this_executor_signed_are_attested() {
        let (ours, other) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        for kind in [PayloadType::Effect, PayloadType::Outcome] {
            assert!(Attested::check(Envelope::sign(kind, b"{}", &[&ours]), &ours.public()).is_ok());
            assert_eq!(
                Attested::check(Envelope::sign(kind, b"{}", &[&other]), &ours.public())
                    .unwrap_err(),
                Reason::BadSignature
            );
            assert_eq!(
                Attested::check(Envelope::unsigned(kind, b"{}"), &ours.public()).unwrap_err(),
                Reason::BadSignature
            );
        }
        let package = Envelope::sign(PayloadType::Package, b"{}", &[&ours]);
        assert_eq!(
            Attested::check(package, &ours.public()).unwrap_err(),
            Reason::WrongPayloadType
        );
    }
}
