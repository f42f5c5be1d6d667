//! The read-only door: what a process without capabilities can't see, one closed question at a time.

use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, Question};

use crate::collect;

/// An address owner answers an ARP probe in milliseconds; three tries fit in.
const ARP: Duration = Duration::from_millis(1500);
/// Longest interface name, bytes (`IFNAMSIZ` without its NUL).
const INTERFACE: usize = 15;

/// Answers one question.
pub(crate) async fn answer(question: Question) -> ExecutorAnswer {
    match question {
        Question::ArpProbe { dev, address } => {
            let IpAddr::V4(address) = address else {
                return failed("an ARP probe is for an IPv4 address");
            };
            let plain = (1..=INTERFACE).contains(&dev.len())
                && !dev.contains(['/', '\0'])
                && !dev.contains(char::is_whitespace);
            if !plain {
                return failed("that is not the name of an interface");
            }
            match collect::arp::probe(&dev, address, ARP).await {
                Ok(others) => ExecutorAnswer::Answering { others },
                Err(error) => failed(&format!("the ARP probe on {dev} failed: {error}")),
            }
        }
    }
}

fn failed(message: &str) -> ExecutorAnswer {
    ExecutorAnswer::Failed {
        message: message.to_owned(),
    }
}
