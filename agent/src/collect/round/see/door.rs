//! What is seen through the read-only door: question by question, side by side, each within its budget.

mod targets;

use std::net::IpAddr;

use aizen_protocol::control::{ExecutorAnswer, Question};
use aizen_protocol::private::Mac;
use aizen_protocol::record::{Body, Duplicate, DuplicateBy, Link};
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use self::targets::Ground;
use super::tables::Tables;
use super::{Part, Told, within};
use crate::clock;
use crate::collect::duplicate::{self, Candidate};
use crate::collect::schedule::Due;
use crate::collect::{CollectError, Seen, Settings, aside};

/// The kernel's own lines: they become part of the record of log lines.
pub(in crate::collect::round) const KERNEL_LOG: &str = "kernel_log";

/// What came through the door.
pub(in crate::collect::round) struct Behind {
    pub(in crate::collect::round) parts: Vec<Part>,
    /// Answers to ARP probes: they become part of another record.
    pub(in crate::collect::round) arp: Option<Told<Vec<Duplicate>>>,
    /// Collectors whose turn it was and who had nothing to ask about: what they saw before is over.
    pub(in crate::collect::round) over: Vec<&'static str>,
}

/// Everything behind the door that is due.
pub(in crate::collect::round) async fn see(
    settings: &Settings,
    due: &Due,
    tables: &Tables,
) -> Behind {
    let ground = Ground {
        links: tables.links.value().map(Vec::as_slice).unwrap_or_default(),
        addresses: tables
            .addresses
            .value()
            .map(Vec::as_slice)
            .unwrap_or_default(),
        role: settings.role,
        wan: &settings.wan,
        serves_dhcp: serves_dhcp(settings).await,
    };
    let asking = Asking {
        settings,
        places: Semaphore::new(AT_ONCE),
    };
    let (mut work, mut over) = (Vec::new(), Vec::new());
    for (collector, what, questions) in questions(&ground) {
        match (due.runs(collector), questions.is_empty()) {
            (true, false) => work.push(asking.part(collector, what, questions)),
            (true, true) => over.push(collector),
            (false, _) => {}
        }
    }
    let (parts, arp) = tokio::join!(join_all(work), asking.arp(due, &ground));
    Behind { parts, arp, over }
}

/// One collector, what it looks for, and what it asks.
type Asked = (&'static str, &'static str, Vec<Question>);

fn questions(ground: &Ground<'_>) -> Vec<Asked> {
    let each = |links: Vec<&Link>, question: fn(String) -> Question| {
        links
            .iter()
            .map(|link| question(link.name.clone()))
            .collect()
    };
    let if_any = |there: bool, question| if there { vec![question] } else { Vec::new() };
    vec![
        ("filter", "the packet filter", vec![Question::Filter]),
        (
            KERNEL_LOG,
            "the kernel's messages",
            vec![Question::KernelLog],
        ),
        (
            "wireguard",
            "WireGuard's peers",
            if_any(ground.has_wireguard(), Question::WireGuard),
        ),
        (
            "modules",
            "pluggable modules",
            if_any(ground.has_hardware(), Question::Modules),
        ),
        (
            "dhcp_probes",
            "who offers DHCP",
            each(ground.dhcp(), |dev| Question::DhcpProbe { dev }),
        ),
        (
            "pppoe_probes",
            "who answers PPPoE",
            each(ground.pppoe(), |dev| Question::PppoeProbe { dev }),
        ),
        (
            "router_probes",
            "IPv6 routers",
            each(ground.routers(), |dev| Question::RouterProbe { dev }),
        ),
        (
            "lldp",
            "LLDP neighbours",
            each(ground.lldp(), |dev| Question::Lldp {
                dev,
                wait_s: LLDP_S,
            }),
        ),
    ]
}

/// Somebody listens on the port of DHCP servers.
async fn serves_dhcp(settings: &Settings) -> bool {
    let file = settings.root.join("proc/net/udp");
    let read = aside::run("aizen-udp", move || std::fs::read_to_string(file));
    matches!(read.await, Ok(Ok(sockets)) if targets::listens_on(&sockets, DHCP_SERVER))
}

/// How questions are put.
struct Asking<'a> {
    settings: &'a Settings,
    /// The executor takes a bounded number of connections of one user.
    places: Semaphore,
}

impl Asking<'_> {
    async fn ask(&self, question: &Question) -> Result<ExecutorAnswer, CollectError> {
        let _place = self.places.acquire().await;
        self.settings.door.ask(question).await
    }

    /// All questions of one collector; their answers become one record.
    async fn part(
        &self,
        collector: &'static str,
        what: &'static str,
        questions: Vec<Question>,
    ) -> Part {
        let answers = join_all(questions.iter().map(|question| async move {
            let told = within(self.settings.budgets.probe, async {
                match self.ask(question).await? {
                    ExecutorAnswer::Seen { body, gaps } => Ok(Seen { value: *body, gaps }),
                    _ => Err(CollectError::Unseen(
                        "that was no answer to the question".to_owned(),
                    )),
                }
            });
            (question, told.await)
        }));
        let told = join(what, answers.await);
        Part { collector, told }
    }

    /// Who else answers for our IPv4 addresses.
    async fn arp(&self, due: &Due, ground: &Ground<'_>) -> Option<Told<Vec<Duplicate>>> {
        let candidates = duplicate::candidates(ground.links, ground.addresses);
        if !due.runs("arp") {
            return None;
        }
        let answers = join_all(candidates.iter().map(|candidate| async move {
            let asked = within(self.settings.budgets.probe, async {
                let value = self.others(candidate).await?;
                Ok(Seen {
                    value,
                    gaps: Vec::new(),
                })
            });
            (candidate, asked.await.result)
        }));
        let mut seen = Seen {
            value: Vec::new(),
            gaps: Vec::new(),
        };
        for (candidate, answer) in answers.await {
            match answer {
                Ok(others) if others.value.is_empty() => {}
                Ok(others) => seen.value.push(Duplicate {
                    link: candidate.link,
                    address: candidate.address.into(),
                    others: others.value,
                    by: DuplicateBy::Arp,
                }),
                Err(CollectError::Closed) => {
                    seen.gaps = vec![closed("who else answers for our IPv4 addresses")];
                    break;
                }
                Err(error) => seen
                    .gaps
                    .push(format!("ARP probe on {}: {error}", candidate.dev)),
            }
        }
        Some(Told {
            at: clock::now(),
            result: Ok(seen),
        })
    }

    async fn others(&self, candidate: &Candidate) -> Result<Vec<Mac>, CollectError> {
        let question = Question::ArpProbe {
            dev: candidate.dev.clone(),
            address: IpAddr::V4(candidate.address),
        };
        match self.ask(&question).await? {
            ExecutorAnswer::Answering { others } => Ok(others),
            _ => Err(CollectError::Unseen(
                "that was no answer to the question".to_owned(),
            )),
        }
    }
}

/// The answers of one collector as one. What failed is a gap; if all failed there is no record.
fn join(what: &str, answers: Vec<(&Question, Told<Body>)>) -> Told<Body> {
    let at = answers.last().map_or_else(clock::now, |(_, told)| told.at);
    let (mut body, mut gaps) = (None, Vec::new());
    for (question, told) in answers {
        let on = crate::door::device(question)
            .map(|dev| format!(" on {dev}"))
            .unwrap_or_default();
        match told.result {
            Ok(seen) => {
                gaps.extend(seen.gaps);
                body = Some(match body {
                    None => seen.value,
                    Some(so_far) => both(so_far, seen.value),
                });
            }
            Err(CollectError::Closed) => {
                let error = CollectError::Unseen(closed(what));
                return Told {
                    at,
                    result: Err(error),
                };
            }
            Err(error) => gaps.push(format!("could not see {what}{on}: {error}")),
        }
    }
    let result = match body {
        Some(value) => Ok(Seen { value, gaps }),
        None => Err(CollectError::Unseen(gaps.join("; "))),
    };
    Told { at, result }
}

/// The answers about two links as one record.
fn both(mut one: Body, other: Body) -> Body {
    match (&mut one, other) {
        (Body::DhcpProbes(one), Body::DhcpProbes(other)) => one.extend(other),
        (Body::PppoeProbes(one), Body::PppoeProbes(other)) => one.extend(other),
        (Body::RouterProbes(one), Body::RouterProbes(other)) => one.extend(other),
        (Body::Lldp(one), Body::Lldp(other)) => one.extend(other),
        // No other collector asks about more than one link.
        _ => {}
    }
    one
}

fn closed(what: &str) -> String {
    format!("could not see {what}: {}", CollectError::Closed)
}

/// Fewer than the connections that the executor takes of one user.
const AT_ONCE: usize = 10;
/// What fits into a round; stations speak every 30 s.
const LLDP_S: u8 = 4;
const DHCP_SERVER: u16 = 67;

#[cfg(test)]
mod tests {
    use aizen_protocol::record::DhcpProbe;

    use super::*;

    fn told(result: Result<Body, CollectError>) -> Told<Body> {
        Told {
            at: clock::now(),
            result: result.map(|value| Seen {
                value,
                gaps: Vec::new(),
            }),
        }
    }

    fn offers(link: u32) -> Body {
        Body::DhcpProbes(vec![DhcpProbe {
            link,
            offers: Vec::new(),
        }])
    }

    fn question(dev: &str) -> Question {
        Question::DhcpProbe {
            dev: dev.to_owned(),
        }
    }

    #[test]
    fn links_that_answered_are_one_record_and_the_one_that_failed_is_a_gap() {
        let (a, b, c) = (question("a"), question("b"), question("c"));
        let failed = || CollectError::Unseen("network is down".to_owned());
        let joined = join(
            "who offers DHCP",
            vec![
                (&a, told(Ok(offers(1)))),
                (&b, told(Err(failed()))),
                (&c, told(Ok(offers(3)))),
            ],
        );
        let seen = joined.result.unwrap();
        let Body::DhcpProbes(probes) = seen.value else {
            panic!("DHCP")
        };
        assert_eq!(probes.iter().map(|p| p.link).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(
            seen.gaps,
            ["could not see who offers DHCP on b: network is down"]
        );
        assert!(
            join("who offers DHCP", vec![(&b, told(Err(failed())))])
                .result
                .is_err()
        );
    }

    #[test]
    fn a_closed_door_is_one_sentence_that_says_what_to_do() {
        let (a, b) = (question("a"), question("b"));
        let shut = || told(Err(CollectError::Closed));
        let joined = join("who offers DHCP", vec![(&a, shut()), (&b, shut())]);
        assert_eq!(
            joined.result.unwrap_err().to_string(),
            "could not see who offers DHCP: only the executor may, and it does not run (start it with systemctl start \
             aizen-executor.socket), or run this as root"
        );
    }
}
