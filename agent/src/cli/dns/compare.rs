//! Where the servers differ, in plain words.

use serde::Serialize;

use super::survey::Told;
use crate::probe::dns::{Message, rcode_name};

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) kind: Kind,
    /// For people.
    pub(super) text: String,
}

/// Of which sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// No answer at all.
    NoAnswer,
    /// An error instead of an answer.
    Error,
    /// Fails with validation, answers without.
    Validation,
    /// A name that can't exist has an address.
    Rewriting,
    /// Others have another response code.
    Code,
    /// Others have other records.
    Records,
}

/// All of them; none if everybody answered alike.
pub(super) fn differences(told: &[Told]) -> Vec<Difference> {
    let mut found: Vec<_> = told.iter().flat_map(alone).collect();
    found.extend(between(told));
    found
}

/// What is wrong with one server by itself.
fn alone(told: &Told) -> Vec<Difference> {
    let who = label(told);
    let mut found = Vec::new();
    let mut add = |kind, text| found.push(Difference { kind, text });
    match &told.ended {
        Err(failure) => add(Kind::NoAnswer, format!("{who} gives no answer: {failure}")),
        Ok(reply) if !serves(&reply.message) => {
            let unvalidated = told.unvalidated.as_ref().and_then(|u| u.as_ref().ok());
            if unvalidated.is_some_and(|u| serves(&u.message)) {
                add(
                    Kind::Validation,
                    format!(
                        "validation fails at {who}, but it answers with checking disabled: a DNSSEC fault, or the clock of one of the two is wrong"
                    ),
                );
            } else {
                add(
                    Kind::Error,
                    format!("{who} answers with {}", rcode_name(reply.message.rcode)),
                );
            }
        }
        Ok(_) if told.rtts.len() < usize::try_from(told.asked).unwrap_or(usize::MAX) => {
            let lost = told
                .asked
                .saturating_sub(u32::try_from(told.rtts.len()).unwrap_or(u32::MAX));
            add(
                Kind::NoAnswer,
                format!("{who} left {lost} of {} questions unanswered", told.asked),
            );
        }
        Ok(_) => {}
    }
    if let Some((name, Ok(reply))) = &told.absent
        && let Some(address) = reply.message.addresses().next()
    {
        add(
            Kind::Rewriting,
            format!(
                "{who} gives {address} for {name}, a name that can't exist: answers are rewritten"
            ),
        );
    }
    found
}

/// Whoever answers otherwise than most do; the first of them where there is no majority.
fn between(told: &[Told]) -> Vec<Difference> {
    let answers: Vec<(&Told, Answer)> = told
        .iter()
        .filter_map(|t| {
            Some((
                t,
                Answer::of(
                    &t.ended
                        .as_ref()
                        .ok()
                        .filter(|r| serves(&r.message))?
                        .message,
                ),
            ))
        })
        .collect();
    let alike = |answer: &Answer| answers.iter().filter(|(_, other)| other == answer).count();
    let most = answers.iter().map(|(_, answer)| alike(answer)).max();
    let Some((usual, expected)) = answers
        .iter()
        .find(|(_, answer)| Some(alike(answer)) == most)
    else {
        return Vec::new();
    };
    let others = answers.iter().filter(|(_, answer)| answer != expected);
    others
        .map(|(other, answer)| {
            let (who, whom) = (label(other), label(usual));
            if answer.rcode == expected.rcode {
                let text = format!("{who} gives other records than {whom}");
                Difference {
                    kind: Kind::Records,
                    text,
                }
            } else {
                let [own, usual] = [answer.rcode, expected.rcode].map(rcode_name);
                let text = format!("{who} says {own}, {whom} says {usual}");
                Difference {
                    kind: Kind::Code,
                    text,
                }
            }
        })
        .collect()
}

/// What two answers are compared by: order and time to live don't count, nor do signatures, which each server may have
/// fetched at another time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    rcode: u16,
    records: Vec<String>,
}

impl Answer {
    fn of(message: &Message) -> Self {
        let mut records: Vec<String> = message
            .answers
            .iter()
            .filter(|record| record.kind != crate::probe::dns::Kind::RRSIG)
            .map(|record| format!("{} {}", record.kind, record.data).to_ascii_lowercase())
            .collect();
        records.sort_unstable();
        Self {
            rcode: message.rcode,
            records,
        }
    }
}

/// NOERROR and NXDOMAIN serve a program.
fn serves(message: &Message) -> bool {
    [0, 3].contains(&message.rcode)
}

/// `192.0.2.1 over TCP`.
pub(super) fn label(told: &Told) -> String {
    format!("{} over {}", told.target.server, told.target.way())
}
