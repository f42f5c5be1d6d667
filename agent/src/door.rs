//! The read-only door: what a process without capabilities can't see, one closed question at a time.
//!
//! The executor answers for others; a process that has the privilege itself asks here directly. Nothing behind this door
//! changes the device, and what is sent (DISCOVER, PADI, solicitation, ARP probe) obliges nobody to anything.

mod attribute;
mod dhcp_probe;
mod filter;
mod kernel_log;
mod lldp;
mod modules;
mod netlink;
mod pppoe_probe;
mod router_probe;
mod wire;
mod wireguard;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, Question};
use aizen_protocol::limit;
use aizen_protocol::record::Body;
use tokio::time::timeout;

use crate::collect::{CollectError, NetlinkError, arp};

pub(crate) use filter::has_tables;

/// What was seen behind the door.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) body: Body,
    pub(crate) gaps: Vec<String>,
}

/// Why nothing was seen behind the door.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// This process may not.
    #[error("it needs {0}")]
    Capability(&'static str),
    /// The kernel has no such thing.
    #[error("this kernel has no {0}")]
    Absent(&'static str),
    /// No such link, or none that speaks Ethernet.
    #[error("{0} is no Ethernet link of this device")]
    NoEthernet(String),
    /// The question makes no sense.
    #[error("{0}")]
    Senseless(&'static str),
    /// netlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A table that the answer builds on wasn't read.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// A socket or file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    DeadlinePassed(Duration),
}

/// Answers one question, within its deadline and in one frame: [`ExecutorAnswer::Seen`] (an ARP probe:
/// [`ExecutorAnswer::Answering`]), or [`ExecutorAnswer::Failed`] with a sentence.
pub async fn answer(question: &Question) -> ExecutorAnswer {
    let deadline = deadline(question);
    let answered = match timeout(deadline, look(question)).await {
        Ok(answered) => answered,
        Err(_) => Err(DoorError::DeadlinePassed(deadline)),
    };
    match answered {
        Ok(answer) if fits(&answer) => answer,
        Ok(_) => failed("the answer is larger than one message"),
        Err(error) => failed(&error.to_string()),
    }
}

async fn look(question: &Question) -> Result<ExecutorAnswer, DoorError> {
    if let Some(dev) = device(question) {
        check_name(dev)?;
    }
    let seen = match question {
        Question::ArpProbe { dev, address } => {
            let IpAddr::V4(address) = address else {
                return Err(DoorError::Senseless("an ARP probe is for an IPv4 address"));
            };
            let others = arp::probe(dev, *address, ARP).await?;
            return Ok(ExecutorAnswer::Answering { others });
        }
        Question::Filter => filter::see().await,
        Question::WireGuard => wireguard::see().await,
        Question::Modules => modules::see().await,
        Question::KernelLog => kernel_log::see().await,
        Question::DhcpProbe { dev } => dhcp_probe::see(dev).await,
        Question::PppoeProbe { dev } => pppoe_probe::see(dev).await,
        Question::RouterProbe { dev } => router_probe::see(dev).await,
        Question::Lldp { dev, wait_s } => {
            lldp::see(dev, Duration::from_secs((*wait_s).into())).await
        }
    }?;
    Ok(ExecutorAnswer::Seen {
        body: Box::new(seen.body),
        gaps: seen.gaps,
    })
}

/// The link that a question is about.
pub(crate) fn device(question: &Question) -> Option<&str> {
    match question {
        Question::ArpProbe { dev, .. }
        | Question::DhcpProbe { dev }
        | Question::PppoeProbe { dev }
        | Question::RouterProbe { dev }
        | Question::Lldp { dev, .. } => Some(dev),
        Question::Filter | Question::WireGuard | Question::Modules | Question::KernelLog => None,
    }
}

/// How long a question may take, whoever asks.
pub(crate) fn deadline(question: &Question) -> Duration {
    (listens(question) + MARGIN).max(LEAST)
}

/// How long a question listens whatever it hears; reading a table does not.
fn listens(question: &Question) -> Duration {
    match question {
        Question::ArpProbe { .. } => ARP,
        Question::DhcpProbe { .. } => dhcp_probe::LISTENS,
        Question::PppoeProbe { .. } => pppoe_probe::LISTENS,
        Question::RouterProbe { .. } => router_probe::LISTENS,
        Question::Lldp { wait_s, .. } => {
            Duration::from_secs((*wait_s).into()).min(lldp::LONGEST_WAIT)
        }
        Question::Filter | Question::WireGuard | Question::Modules | Question::KernelLog => {
            Duration::ZERO
        }
    }
}

fn check_name(dev: &str) -> Result<(), DoorError> {
    let plain = (1..=INTERFACE).contains(&dev.len())
        && !dev.contains(['/', '\0'])
        && !dev.contains(char::is_whitespace);
    if plain {
        Ok(())
    } else {
        Err(DoorError::Senseless("that is not the name of an interface"))
    }
}

fn fits(answer: &ExecutorAnswer) -> bool {
    serde_json::to_vec(answer).is_ok_and(|line| line.len() < limit::FRAME)
}

pub(crate) fn failed(message: &str) -> ExecutorAnswer {
    ExecutorAnswer::Failed {
        message: message.to_owned(),
    }
}

/// An address owner answers an ARP probe in milliseconds; three tries fit in.
const ARP: Duration = Duration::from_millis(1200);
/// What a question may take at least.
const LEAST: Duration = Duration::from_secs(4);
const MARGIN: Duration = Duration::from_millis(500);
/// Longest interface name, bytes (`IFNAMSIZ` without its NUL).
const INTERFACE: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Budgets;

    #[tokio::test]
    async fn what_is_no_interface_is_refused_with_a_sentence() {
        for dev in ["", "a b", "../x", "much-too-long-name"] {
            let question = Question::RouterProbe {
                dev: dev.to_owned(),
            };
            assert_eq!(
                answer(&question).await,
                failed("that is not the name of an interface"),
                "{dev}"
            );
        }
        let loopback = Question::DhcpProbe {
            dev: "lo".to_owned(),
        };
        assert_eq!(
            answer(&loopback).await,
            failed("lo is no Ethernet link of this device")
        );
    }

    #[test]
    fn nobody_can_make_a_listener_wait_for_ever() {
        let question = Question::Lldp {
            dev: "eth0".to_owned(),
            wait_s: u8::MAX,
        };
        assert!(deadline(&question) < Duration::from_secs(32));
    }

    #[test]
    fn what_a_question_hears_to_its_end_is_told_within_a_rounds_budget() {
        let dev = || "eth0".to_owned();
        let address = IpAddr::from([192, 0, 2, 1]);
        for question in [
            Question::ArpProbe {
                dev: dev(),
                address,
            },
            Question::DhcpProbe { dev: dev() },
            Question::PppoeProbe { dev: dev() },
            Question::RouterProbe { dev: dev() },
            Question::Lldp {
                dev: dev(),
                wait_s: 4,
            },
        ] {
            let deadline = deadline(&question);
            assert!(listens(&question) + MARGIN <= deadline, "{question:?}");
            assert!(deadline < Budgets::default().probe, "{question:?}");
        }
    }

    #[test]
    fn an_answer_beyond_one_frame_is_not_sent() {
        let gaps = vec!["x".repeat(limit::FRAME)];
        let body = Box::new(Body::Filter(Vec::new()));
        assert!(!fits(&ExecutorAnswer::Seen { body, gaps }));
    }
}
