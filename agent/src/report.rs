//! How a package ended: sanitized, signed by this device, and kept until the daemon's spool has it.

use std::path::PathBuf;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::Digest;
use aizen_protocol::key::PrivateKey;
use aizen_protocol::limit;
use aizen_protocol::outcome::Outcome;
use aizen_protocol::private::{Private, PrivateVisitor, Text};
use aizen_protocol::reason::Reason;
use aizen_sanitizer::Sanitizer;

use crate::store::{Store, StoreError};

/// Longest payload that still fits into an envelope once it is base64, bytes.
const PAYLOAD: usize = limit::ENVELOPE / 4 * 3 - 4096;
/// What is kept of each text of an outcome that is too long, bytes.
const KEPT: usize = 2048;

/// Why an outcome could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It can't be written as JSON.
    #[error("an outcome can't be written: {0}")]
    Form(#[from] serde_json::Error),
    /// A stored outcome is no envelope.
    #[error("the stored outcome {name} is not in form: {reason}")]
    Damaged {
        /// The entry.
        name: String,
        /// What is wrong.
        reason: Reason,
    },
}

/// Sanitizes and signs an outcome. What the sanitizer withholds is reported without its texts: that a package ended is
/// never kept back.
///
/// # Errors
/// [`ReportError::Form`].
pub fn sign(
    outcome: Outcome,
    sanitizer: &mut Sanitizer,
    key: &PrivateKey,
) -> Result<Envelope, ReportError> {
    let outcome = fitted(outcome)?;
    let sanitized = match sanitizer.sanitize_value(outcome.clone()) {
        Ok(sanitized) => sanitized.into_inner(),
        Err(withheld) => {
            tracing::error!(%withheld, "an outcome is reported without its texts");
            without_texts(outcome)
        }
    };
    let payload = serde_json::to_vec(&sanitized)?;
    Ok(Envelope::sign(PayloadType::Outcome, &payload, &[key]))
}

/// Cuts an outcome to what an envelope holds: first long texts, then the effect as a whole, because a cut effect would
/// be another effect than the approved one.
fn fitted(mut outcome: Outcome) -> Result<Outcome, ReportError> {
    if serde_json::to_vec(&outcome)?.len() <= PAYLOAD {
        return Ok(outcome);
    }
    let effect = outcome.effect.take();
    outcome.visit_private(&mut Cut { keep: KEPT });
    outcome.effect = effect;
    if serde_json::to_vec(&outcome)?.len() > PAYLOAD {
        outcome.effect = None;
        outcome.detail = Text(format!(
            "{}; the effect is too long to report",
            outcome.detail
        ));
    }
    Ok(outcome)
}

fn without_texts(mut outcome: Outcome) -> Outcome {
    outcome.effect = None;
    outcome.visit_private(&mut Cut { keep: 0 });
    outcome
}

/// Cuts every text at a character's end.
struct Cut {
    keep: usize,
}

impl PrivateVisitor for Cut {
    fn address(&mut self, _: &mut std::net::IpAddr) {}
    fn prefix(&mut self, _: &mut aizen_protocol::private::Prefix) {}
    fn mac(&mut self, _: &mut aizen_protocol::private::Mac) {}
    fn name(&mut self, _: &mut aizen_protocol::private::Name) {}
    fn text(&mut self, value: &mut Text) {
        if value.0.len() > self.keep {
            let left_out = value.0.len() - self.keep;
            let end = (0..=self.keep)
                .rev()
                .find(|end| value.0.is_char_boundary(*end))
                .unwrap_or(0);
            value.0.truncate(end);
            value.0.push_str(&format!("[{left_out} bytes left out]"));
        }
    }
}

/// Signed outcomes that nobody acknowledged yet.
#[derive(Clone, Debug)]
pub struct Outbox {
    store: Store,
    note: Option<PathBuf>,
}

impl Outbox {
    /// Opens the outbox of a state directory.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(state: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            store: state.inside("outcomes")?,
            note: state.beside("outcomes"),
        })
    }

    /// Keeps an outcome under a name (a change's, or a refusal's), durably, and returns its digest. A name that is
    /// there already keeps its first outcome: there is exactly one.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn keep(&self, name: &str, envelope: &Envelope) -> Result<Digest, ReportError> {
        if let Some(kept) = self.find(name)? {
            return digest(name, &kept);
        }
        let number = self.names()?.iter().map(|(n, _)| n + 1).max().unwrap_or(0);
        let entry = format!("{number:016}.{name}");
        self.store.write(&entry, &serde_json::to_vec(envelope)?)?;
        self.tell();
        digest(name, envelope)
    }

    /// Touches the note that the daemon looks at, so that it comes for what was decided without it. Only its time of
    /// change counts; without it the daemon comes at its next start.
    fn tell(&self) {
        let Some(note) = &self.note else { return };
        if let Err(error) = std::fs::write(note, b"outcomes wait for the daemon\n") {
            tracing::warn!(%error, note = %note.display(), "the daemon is not told that an outcome waits");
        }
    }

    /// The outcome under this name.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn find(&self, name: &str) -> Result<Option<Envelope>, ReportError> {
        match self.names()?.iter().find(|(_, n)| n == name) {
            Some((number, name)) => self.read(*number, name).map(Some),
            None => Ok(None),
        }
    }

    /// All of them, oldest first. One that is damaged does not hold up the others.
    ///
    /// # Errors
    /// [`ReportError::Store`].
    pub fn all(&self) -> Result<Vec<Envelope>, ReportError> {
        let mut all = Vec::new();
        for (number, name) in self.names()? {
            match self.read(number, &name) {
                Ok(envelope) => all.push(envelope),
                Err(error @ ReportError::Damaged { .. }) => {
                    tracing::error!(%error, "an outcome can't be handed on");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Number of outcomes.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn len(&self) -> Result<usize, ReportError> {
        Ok(self.names()?.len())
    }

    /// True without an outcome.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn is_empty(&self) -> Result<bool, ReportError> {
        Ok(self.len()? == 0)
    }

    /// Forgets the outcome whose payload has this digest; false if there is none.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn acknowledge(&self, wanted: &Digest) -> Result<bool, ReportError> {
        for (number, name) in self.names()? {
            let kept = self.read(number, &name).and_then(|e| digest(&name, &e));
            if kept.is_ok_and(|kept| kept == *wanted) {
                self.store.remove(&format!("{number:016}.{name}"))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn names(&self) -> Result<Vec<(u64, String)>, ReportError> {
        let parse = |entry: &String| {
            let (number, name) = entry.split_once('.')?;
            Some((number.parse().ok()?, name.to_owned()))
        };
        Ok(self.store.names()?.iter().filter_map(parse).collect())
    }

    fn read(&self, number: u64, name: &str) -> Result<Envelope, ReportError> {
        let entry = format!("{number:016}.{name}");
        let damaged = |reason| ReportError::Damaged {
            name: entry.clone(),
            reason,
        };
        let bytes = self
            .store
            .read(&entry, limit::FRAME as u64)?
            .ok_or_else(|| damaged(Reason::StorageFailed))?;
        Envelope::parse(&bytes).map_err(damaged)
    }
}

/// SHA-256 of an envelope's payload.
fn digest(name: &str, envelope: &Envelope) -> Result<Digest, ReportError> {
    let payload = envelope
        .unverified_payload()
        .map_err(|reason| ReportError::Damaged {
            name: name.to_owned(),
            reason,
        })?;
    Ok(Digest::of(&payload))
}

#[cfg(test)]
mod tests {
    use aizen_protocol::outcome::End;

    use super::*;

    fn outcome(detail: String) -> Outcome {
        Outcome {
            device: "dev-1".parse().unwrap(),
            epoch: "ep-1".parse().unwrap(),
            change: None,
            package: None,
            package_digest: None,
            correlation_id: None,
            end: End::Refused,
            reason: Some(Reason::Expired),
            detail: detail.into(),
            script: None,
            effect: None,
            approved_effect: None,
            approved_changes: None,
            isolation: aizen_protocol::outcome::Isolation::default(),
            probes: Vec::new(),
            state_before: None,
            state_after: None,
            not_restored: Vec::new(),
            steps: Vec::new(),
            journal_head: None,
        }
    }

    fn signed(key: &PrivateKey, payload: &[u8]) -> Envelope {
        Envelope::sign(PayloadType::Outcome, payload, &[key])
    }

    #[test]
    fn outcomes_are_kept_once_in_order_until_they_are_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let outbox = Outbox::open(&store).unwrap();
        let key = PrivateKey::generate().unwrap();
        let (one, two) = (signed(&key, b"1"), signed(&key, b"2"));
        let first = outbox.keep("chg-1", &one).unwrap();
        assert_eq!(first, Digest::of(b"1"));
        assert_eq!(outbox.keep("chg-1", &two).unwrap(), first, "kept once");
        outbox.keep("chg-2", &two).unwrap();
        let again = Outbox::open(&store).unwrap();
        assert_eq!(again.all().unwrap(), [one, two.clone()]);
        assert!(!again.acknowledge(&Digest::of(b"3")).unwrap());
        assert!(again.acknowledge(&first).unwrap());
        assert!(!again.acknowledge(&first).unwrap());
        std::fs::write(store.path("outcomes/0000000000000000.chg-0"), "{").unwrap();
        assert_eq!(again.all().unwrap(), [two], "a damaged one holds up nobody");
    }

    #[test]
    fn an_outcome_is_cut_to_what_an_envelope_holds_and_says_so() {
        let short = outcome("é".repeat(100));
        assert_eq!(fitted(short.clone()).unwrap(), short);
        let long = fitted(outcome("é".repeat(limit::ENVELOPE))).unwrap();
        assert!(serde_json::to_vec(&long).unwrap().len() <= PAYLOAD);
        assert!(
            long.detail.0.ends_with("bytes left out]"),
            "{}",
            long.detail
        );
        assert_eq!(without_texts(short).detail.0, "[200 bytes left out]");
    }
}
