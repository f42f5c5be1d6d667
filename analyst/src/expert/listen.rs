//! Connections that come faster than they are taken: a flood of SYN, or a program that accepts too slowly.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Listener, Protocols};

use super::draft::{Draft, Examined, Layer};
use super::trend::{self, Step};
use crate::case::View;
use crate::repair;

/// Half-open connections that no ordinary load leaves.
const HALF_OPEN: u32 = 64;
/// The same with so few sources that no forged addresses are at work.
const HALF_OPEN_FEW: u32 = 256;
/// Sources that make it a flood of many.
const SOURCES: u32 = 32;
/// Overflows in a step; one burst overflows any queue.
const OVERFLOWS: u64 = 10;
/// What the kernel takes for `net.core.somaxconn`, before and since Linux 5.4: only then is that the bound.
const DEFAULT_BACKLOGS: [u32; 2] = [128, 4096];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    if let Some(draft) = flood(view) {
        examined.drafts.push(draft);
    } else if let Some(draft) = slow_program(view) {
        examined.drafts.push(draft);
    } else if let Some(seen) = &view.now().protocols {
        examined.well.push(format!(
            "{} connections are half open",
            half_open(&seen.value)
        ));
    }
    examined
}

fn half_open(protocols: &Protocols) -> u32 {
    protocols.tcp_states.get("syn_recv").copied().unwrap_or(0)
}

fn flood(view: &View<'_>) -> Option<Draft> {
    let step = trend::steps(view, |pass| pass.protocols.as_ref(), 1)?.pop()?;
    let (count, sources) = (half_open(step.after), step.after.syn_recv_sources);
    let is_many = count >= HALF_OPEN && sources >= SOURCES || count >= HALF_OPEN_FEW;
    let cookies = step.counter("TcpExt.SyncookiesSent").unwrap_or(0);
    let dropped = step.counter("TcpExt.TCPReqQFullDrop").unwrap_or(0);
    let overflows = step.counter("TcpExt.ListenOverflows").unwrap_or(0);
    if !is_many || cookies + dropped == 0 && overflows < OVERFLOWS {
        return None;
    }
    let mut draft = Draft::new(
        "syn_flood",
        Layer::Path,
        "tcp",
        Severity::Critical,
        format!("{count} half-open connections from {sources} addresses flood this device"),
    );
    let fact = format!("{count} TCP connections are half open, from {sources} addresses");
    draft.shown("protocols", "syn_recv", step.at, fact);
    for (growth, what) in [
        (cookies, "SYN cookies were sent"),
        (dropped, "SYN were dropped because the queue was full"),
        (overflows, "connections met a full accept queue"),
    ] {
        if growth > 0 {
            let fact = format!("{growth} {what} within {} s", step.seconds());
            draft.shown("protocols", what, step.at, fact);
        }
    }
    if sources < SOURCES {
        let fact = format!("only {sources} addresses take part: one host may be faulty");
        draft.contradicted("protocols", step.at, fact);
    }
    for cause in ["listen_overflow", "conntrack_full"] {
        draft.covers(cause, None);
    }
    draft.explains("Others find it hard to connect to this device");
    draft.misses("from where the SYN come and to which port (`ss -tn state syn-recv`)");
    if dropped > 0 && cookies == 0 {
        draft.propose(repair::parameter::switch_syncookies_on(view));
    }
    draft.next(
        "Find the port that is flooded (`ss -tn state syn-recv`) and limit the rate of new \
         connections to it from the outside in the packet filter; a person decides, because the \
         limit also meets real clients",
    );
    Some(draft)
}

/// The accept queue of a program overflows in two steps; or in one, at both ends of which the same queue is full.
fn slow_program(view: &View<'_>) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.protocols.as_ref(), 2).or_else(|| {
        trend::steps(view, |pass| pass.protocols.as_ref(), 1)
            .filter(|steps| steps.iter().all(stays_full))
    })?;
    let overflows: Vec<u64> = steps
        .iter()
        .map(|step| step.counter("TcpExt.ListenOverflows").unwrap_or(0))
        .collect();
    if overflows.iter().any(|growth| *growth < OVERFLOWS) {
        return None;
    }
    let newest = steps.first()?;
    let listener = newest
        .after
        .waiting
        .iter()
        .find(|listener| is_full(listener));
    let component = listener.map_or_else(
        || "tcp".into(),
        |listener| format!("tcp port {}", listener.port),
    );
    let mut draft = Draft::new(
        "listen_overflow",
        Layer::Path,
        component.as_str(),
        Severity::Warning,
        format!("A program on {component} accepts connections too slowly"),
    );
    for (step, growth) in steps.iter().zip(&overflows) {
        let fact = format!(
            "{growth} connections met a full accept queue within {} s",
            step.seconds()
        );
        draft.shown("protocols", "overflows", step.at, fact);
    }
    match listener {
        Some(listener) => {
            let fact = format!(
                "{} of {} connections wait to be accepted on port {}",
                listener.queued, listener.backlog, listener.port
            );
            draft.backed("protocols", "waiting", newest.at, fact);
        }
        None => draft.misses("which port's queue is full (`ss -ltn`)"),
    }
    draft.explains("Clients wait seconds for a connection or give up");
    draft.misses("what the program waits for (its own log, `top`)");
    let bound = listener.filter(|listener| DEFAULT_BACKLOGS.contains(&listener.backlog));
    draft.propose(
        bound.and_then(|listener| repair::parameter::raise_backlog(view, listener.backlog)),
    );
    draft.next(format!(
        "Find out why the program behind {component} is slow; if it is only a burst, let its \
         queue be longer and restart it"
    ));
    Some(draft)
}

/// A port whose queue is full before the step and after it.
fn stays_full(step: &Step<'_, Protocols>) -> bool {
    let full = |protocols: &'_ Protocols, port: u16| {
        let mut waiting = protocols.waiting.iter();
        waiting.any(|listener| listener.port == port && is_full(listener))
    };
    step.after
        .waiting
        .iter()
        .any(|listener| is_full(listener) && full(step.before, listener.port))
}

fn is_full(listener: &Listener) -> bool {
    listener.backlog > 0 && listener.queued >= listener.backlog
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Confidence;
    use aizen_protocol::record::{Body, Listener, Protocols};

    use crate::fixture::machine::{history, protocols};
    use crate::fixture::{Evidence, only, verdict};

    fn with(change: impl Fn(u64, &mut Protocols)) -> Vec<Evidence> {
        history(4, |round, evidence| {
            let mut seen = protocols(round);
            change(round, &mut seen);
            evidence.see(Body::Protocols(seen));
        })
    }

    fn count(seen: &mut Protocols, counter: &str, value: u64) {
        seen.counters.insert(counter.into(), value);
    }

    #[test]
    fn many_half_open_connections_from_many_sources_are_a_flood_and_cookies_help_where_they_are_off()
     {
        let rounds = with(|round, seen| {
            seen.tcp_states.insert("syn_recv".into(), 128);
            seen.syn_recv_sources = 120;
            count(seen, "TcpExt.TCPReqQFullDrop", 900 * round);
            count(seen, "TcpExt.ListenOverflows", 90 * round);
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("syn_flood", Confidence::Certain)
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net.ipv4.tcp_syncookies=1\n"),
            "{script}"
        );
    }

    #[test]
    fn where_cookies_are_sent_already_there_is_nothing_to_switch_on() {
        let rounds = with(|round, seen| {
            seen.tcp_states.insert("syn_recv".into(), 128);
            seen.syn_recv_sources = 120;
            count(seen, "TcpExt.SyncookiesSent", 900 * round);
        });
        assert_eq!(only(&verdict(&rounds)).proposal, None);
    }

    #[test]
    fn a_full_accept_queue_with_few_sources_is_a_slow_program() {
        let rounds = with(|round, seen| {
            count(seen, "TcpExt.ListenOverflows", 50 * round);
            seen.waiting = vec![Listener {
                port: 8080,
                queued: 129,
                backlog: 128,
            }];
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("listen_overflow", "tcp port 8080")
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net.core.somaxconn=512\n"),
            "{script}"
        );
    }

    #[test]
    fn one_step_tells_a_slow_program_only_where_its_queue_is_full_before_and_after() {
        let rounds = |before: u32| {
            history(2, move |round, evidence| {
                let mut seen = protocols(round);
                count(&mut seen, "TcpExt.ListenOverflows", 50 * round);
                seen.waiting = vec![Listener {
                    port: 8080,
                    queued: if round == 1 { before } else { 5 },
                    backlog: 4,
                }];
                evidence.see(Body::Protocols(seen));
            })
        };
        assert_eq!(only(&verdict(&rounds(5))).component.0, "tcp port 8080");
        assert_eq!(verdict(&rounds(0)).findings, []);
    }

    #[test]
    fn totals_of_the_past_one_burst_and_a_busy_server_do_not_alarm() {
        let look_alikes: [fn(u64, &mut Protocols); 4] = [
            |_, _| {},
            |_, seen| count(seen, "TcpExt.ListenOverflows", 4_000_000),
            |round, seen| {
                count(
                    seen,
                    "TcpExt.ListenOverflows",
                    if round == 4 { 300 } else { 7 },
                )
            },
            |_, seen| {
                seen.tcp_states.insert("syn_recv".into(), 100);
                seen.syn_recv_sources = 90;
            },
        ];
        for change in look_alikes {
            assert_eq!(verdict(&with(change)).findings, []);
        }
    }
}
