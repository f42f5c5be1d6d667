//! What a script may say to its broker, and hear.

use aizen_protocol::{limit, strict};

use super::grant::Exact;
use super::serve::{self, Answer};
use crate::fuzz::survives;

/// Requests of `change`, and answers.
pub fn broker(bytes: &[u8]) {
    if let Ok((operation, content)) = serve::parse(bytes) {
        survives(&operation);
        assert!(content.len() <= bytes.len());
        if let Ok(exact) = Exact::try_from(&operation) {
            // Written and read again it is the same.
            let again = serde_json::to_vec(&operation).ok();
            let again = again.and_then(|text| serde_json::from_slice(&text).ok());
            let again = again.and_then(|operation| Exact::try_from(&operation).ok());
            assert_eq!(again, Some(exact));
        }
    }
    drop(strict::from_slice::<Answer>(bytes, limit::FRAME));
}
