//! Why a device refuses: one code a check, the same on stderr, in JSON, in reports and in the documents.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($variant:ident = $code:literal, $sentence:literal;)*) => {
        /// A refusal's code. The codes are a contract: scripts of others depend on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $(#[doc = $sentence] #[serde(rename = $code)] $variant,)* }

        impl Reason {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code, `snake_case`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    TooLarge = "too_large", "the bytes exceed the bound for their kind";
    MalformedEnvelope = "malformed_envelope", "not a DSSE envelope in strict form";
    WrongPayloadType = "wrong_payload_type", "the envelope carries another kind of payload than this door takes";
    TooManySignatures = "too_many_signatures", "more signatures than a verifier looks at";
    BadSignature = "bad_signature", "no key of the trust document signed exactly these bytes";
    MalformedPayload = "malformed_payload", "the signed payload is not in the strict form of its schema";
    UnsupportedSchema = "unsupported_schema", "the payload's schema version is not one this device knows";
    TrustVersion = "trust_version", "the package names another trust document than the device holds";
    TrustExpired = "trust_expired", "the trust document has expired: only diagnosis is allowed";
    KeyNotAuthorised = "key_not_authorised", "a key signed what its role may not sign, or after its time";
    ApproverMissing = "approver_missing", "no person's key signed this package";
    DeliveryMissing = "delivery_missing", "the orchestrator's delivery statement for this package is missing or not valid";
    WrongTarget = "wrong_target", "the package is for another device";
    WrongEpoch = "wrong_epoch", "the package is for another generation of this device's state";
    NotYetValid = "not_yet_valid", "the package is not valid yet";
    Expired = "expired", "the package's time is over";
    ClockUntrusted = "clock_untrusted", "the clock was never synchronised: changes are possible on the spot only";
    Replayed = "replayed", "this package was admitted before and never runs twice";
    LengthMismatch = "length_mismatch", "the script is not as long as the package says";
    ChecksumMismatch = "checksum_mismatch", "the script's SHA-256 is not the one the package says";
    UnsupportedClass = "unsupported_class", "this device runs no script of that class";
    ObserveOnly = "observe_only", "this device only observes until its operator allows changes";
    Paused = "paused", "changes are paused on this device";
    PolicyDenied = "policy_denied", "the device's own policy does not allow what the manifest asks";
    RiskUnderstated = "risk_understated", "the package states a lower risk than its manifest has";
    PolicyViolation = "policy_violation", "the script changed what its manifest does not declare, so it was undone";
    IsolationUnreachable = "isolation_unreachable", "this kernel can't give the isolation that the package asks for";
    UnknownBinding = "unknown_binding", "the script names a pseudonym that this device doesn't know";
    BindingMismatch = "binding_mismatch", "a value given for a pseudonym doesn't belong to it";
    Busy = "busy", "another change is pending";
    RollbackIncomplete = "rollback_incomplete", "an earlier rollback is incomplete: a person must clear it first";
    NoSpace = "no_space", "the space that a safe rollback needs can't be reserved";
    Revoked = "revoked", "this device or a signer was revoked";
    NotEnrolled = "not_enrolled", "this device has no trust document: enrol it first";
    StorageFailed = "storage_failed", "the device can't write its journal, so it changes nothing";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.sentence())
    }
}

impl std::error::Error for Reason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_written_as_its_code() {
        for reason in Reason::ALL {
            assert_eq!(
                serde_json::to_string(reason).unwrap(),
                format!("\"{}\"", reason.code())
            );
        }
    }
}
