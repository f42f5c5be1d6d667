//! The device's own packet filter drops what it should let through.
//!
//! Input chains drop the noise of the internet on every healthy router: only what leaves the device, or a policy that
//! changed, is held against the probes.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::private::Prefix;
use aizen_protocol::record::{
    Connect, ConnectOutcome, DnsAnswer, DnsProbe, DnsPurpose, DnsTransport, FilterChain,
    FilterRule, Reach, Role,
};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::question;
use super::reach;
use super::trend::{self, Step};
use crate::case::{Family, View, default_route};

/// Rules of a chain that are read; with so many it may go on.
const RULES_READ: usize = 256;
/// Facts about probes that a finding quotes.
const PROBES: usize = 4;

/// A probe that this device sent and that nobody answered although somebody should have.
struct Failed {
    source: &'static str,
    /// As nft names it.
    protocol: &'static str,
    port: Option<u16>,
    target: IpAddr,
    /// It answered earlier in this boot.
    before: bool,
    at: Timestamp,
    fact: String,
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().filter else {
        return examined;
    };
    let failed = failed(view);
    if !failed.is_empty() {
        examined.drafts.extend(counting_rule(view, &failed));
        if examined.drafts.is_empty() {
            let draft = policy(view, &failed).or_else(|| closed(view, &failed));
            examined.drafts.extend(draft);
        }
    }
    examined.drafts.extend(forwards_nothing(view));
    if examined.drafts.is_empty() {
        examined.well.push(format!(
            "No packet filter rule drops what this device tried ({} chains read)",
            seen.value.len()
        ));
    }
    examined
}

/// What was tried in this pass without any answer: configured resolvers, connections, and hosts that answered echo
/// requests earlier in this boot. Others may never have answered anybody.
fn failed(view: &View<'_>) -> Vec<Failed> {
    let mut all = Vec::new();
    let now = view.now();
    if let Some(seen) = &now.dns {
        let is_silent = |probe: &&DnsProbe| {
            probe.configured
                && (probe.purpose, probe.transport) == (DnsPurpose::Lookup, DnsTransport::Udp)
                && !probe.answers.is_empty()
                && probe
                    .answers
                    .iter()
                    .all(|answer| matches!(answer, DnsAnswer::Timeout | DnsAnswer::Unreachable))
        };
        all.extend(seen.value.iter().filter(is_silent).map(|probe| {
            Failed {
                source: "dns",
                protocol: "udp",
                port: Some(53),
                target: probe.resolver,
                before: view
                    .this_boot()
                    .filter_map(|pass| question::tally(pass, probe.resolver))
                    .any(|tally| tally.served > 0),
                at: seen.at,
                fact: format!(
                    "{} answered none of {} questions",
                    probe.resolver,
                    probe.answers.len()
                ),
            }
        }));
    }
    if let Some(seen) = &now.connects {
        let is_silent = |connect: &&Connect| {
            matches!(
                connect.outcome,
                ConnectOutcome::Timeout | ConnectOutcome::Unreachable
            )
        };
        all.extend(seen.value.iter().filter(is_silent).map(|connect| Failed {
            source: "connects",
            protocol: "tcp",
            port: Some(connect.port),
            target: connect.target,
            before: connected_before(view, connect),
            at: seen.at,
            fact: format!(
                "no TCP connection to {} port {}",
                connect.target, connect.port
            ),
        }));
    }
    if let Some(seen) = &now.reach {
        let answered = |reach: &Reach| {
            view.this_boot()
                .filter_map(|pass| reach::ping(pass, reach.target))
                .any(|ping| ping.received > 0)
        };
        let is_silent = |reach: &&Reach| reach.sent > 0 && reach.received == 0 && answered(reach);
        all.extend(seen.value.iter().filter(is_silent).map(|reach| Failed {
            source: "reach",
            protocol: "icmp",
            port: None,
            target: reach.target,
            before: true,
            at: seen.at,
            fact: format!(
                "{} answered none of {} echo requests",
                reach.target, reach.sent
            ),
        }));
    }
    all
}

/// False if the rule's text says that it is about something else than this probe.
fn may_concern(rule: &FilterRule, failed: &Failed) -> bool {
    let words: Vec<&str> = rule
        .text
        .0
        .split(|c: char| !c.is_ascii_alphanumeric())
        .collect();
    let says = |word: &str| words.contains(&word);
    // Packets that belong to no connection are no probe's.
    if says("invalid") {
        return false;
    }
    let named = |protocol: &str| match protocol {
        "icmp" => says("icmp") || says("icmpv6"),
        other => says(other),
    };
    let names_any = ["udp", "tcp", "icmp"].into_iter().any(named);
    let protocol = !names_any || named(failed.protocol);
    let port = !says("dport") || failed.port.is_some_and(|port| says(&port.to_string()));
    protocol && port && may_go_to(&rule.text.0, failed.target)
}

/// False if the rule's text names destinations and none of them holds the target.
fn may_go_to(text: &str, target: IpAddr) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || "{},".contains(c));
    if !words.any(|word| word == "daddr") {
        return true;
    }
    let named: Vec<Prefix> = words
        .filter(|word| !word.is_empty())
        .map_while(|word| word.parse().ok())
        .collect();
    named.is_empty() || named.iter().any(|prefix| prefix.contains(target))
}

fn connected_before(view: &View<'_>, connect: &Connect) -> bool {
    view.this_boot()
        .filter_map(|pass| pass.connects.as_ref())
        .flat_map(|seen| &seen.value)
        .any(|older| {
            (older.target, older.port) == (connect.target, connect.port)
                && older.outcome == ConnectOutcome::Connected
        })
}

fn drops(rule: &FilterRule) -> bool {
    rule.verdict
        .as_deref()
        .is_some_and(|verdict| verdict.starts_with("drop") || verdict.starts_with("reject"))
}

fn name(chain: &FilterChain) -> String {
    format!("{} {} {}", chain.family, chain.table, chain.chain)
}

/// True if the rule's text names the target of this probe as destination: what it counts goes there.
fn names_target(rule: &FilterRule, failed: &Failed) -> bool {
    let mut words = rule.text.0.split_whitespace();
    words.any(|word| word == "daddr")
        && words.next().is_some_and(|next| {
            next.parse::<Prefix>()
                .is_ok_and(|prefix| prefix.contains(failed.target) && !prefix.is_default())
        })
}

/// A rule for what leaves the device counts more packets in each of the last two steps, while probes fail; for a rule
/// that names the target of the probe one step tells enough.
fn counting_rule(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.filter.as_ref(), 2)
        .or_else(|| trend::steps(view, |pass| pass.filter.as_ref(), 1))?;
    let newest = steps.first()?;
    let outgoing = newest
        .after
        .iter()
        .filter(|chain| chain.hook.as_deref() == Some("output"));
    let (chain, rule, growth) = outgoing
        .flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
        .filter(|(_, rule)| drops(rule) && failed.iter().any(|failed| may_concern(rule, failed)))
        .filter(|(_, rule)| {
            steps.len() > 1 || failed.iter().any(|failed| names_target(rule, failed))
        })
        .filter_map(|(chain, rule)| {
            let growth: Vec<u64> = steps
                .iter()
                .map(|step| counted(step, chain, rule))
                .collect::<Option<_>>()?;
            growth
                .iter()
                .all(|growth| *growth > 0)
                .then_some((chain, rule, growth))
        })
        .max_by_key(|(_, _, growth)| growth.first().copied())?;
    let failed: Vec<&Failed> = failed
        .iter()
        .filter(|failed| may_concern(rule, failed))
        .collect();
    let mut draft = blamed(
        &name(chain),
        &failed,
        format!("A rule in {} drops packets of this device", name(chain)),
    );
    for (step, growth) in steps.iter().zip(growth) {
        let fact = format!(
            "rule {} in {} ({}) dropped {growth} packets within {} s",
            rule.handle,
            name(chain),
            rule.text,
            step.seconds()
        );
        draft.shown("filter", "rule", step.at, fact);
    }
    quote(&mut draft, &failed);
    draft.misses(format!(
        "that the packets dropped are those of the failing probes (`nft monitor trace`, rule {} \
         of {})",
        rule.handle,
        name(chain)
    ));
    draft.next(format!(
        "Read rule {} of {} (`nft -a list chain {}`) and put a narrow accept above it if the \
         traffic is wanted",
        rule.handle,
        name(chain),
        name(chain)
    ));
    Some(draft)
}

/// Growth of the same rule; none if it was replaced or doesn't count.
fn counted(
    step: &Step<'_, Vec<FilterChain>>,
    chain: &FilterChain,
    rule: &FilterRule,
) -> Option<u64> {
    let find = |chains: &[FilterChain]| {
        let same = chains.iter().find(|other| {
            (&other.family, &other.table, &other.chain)
                == (&chain.family, &chain.table, &chain.chain)
        })?;
        let same = same
            .rules
            .iter()
            .find(|other| other.handle == rule.handle && other.text == rule.text)?;
        same.packets
    };
    find(step.after)?.checked_sub(find(step.before)?)
}

/// A chain began to drop by default, and what answered before fails since.
fn policy(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
    let seen = view.now().filter.as_ref()?;
    let dropping = |chain: &&FilterChain| {
        chain.policy.as_deref() == Some("drop")
            && matches!(chain.hook.as_deref(), Some("input" | "output"))
    };
    let (chain, accepted) = seen.value.iter().filter(dropping).find_map(|chain| {
        let earlier = trend::readings(view, |pass| pass.filter.as_ref()).skip(1);
        let accepted = earlier.into_iter().find(|older| {
            older.value.iter().any(|older| {
                name(older) == name(chain) && older.policy.as_deref() == Some("accept")
            })
        })?;
        Some((chain, accepted.at))
    })?;
    let failed: Vec<&Failed> = failed.iter().filter(|failed| failed.before).collect();
    failed.first()?;
    let mut draft = blamed(
        &name(chain),
        &failed,
        format!(
            "The chain {} began to drop everything by default",
            name(chain)
        ),
    );
    draft.shown(
        "filter",
        "policy",
        seen.at,
        format!("the policy of {} is drop", name(chain)),
    );
    draft.backed(
        "filter",
        "earlier",
        accepted,
        format!("the policy of {} was accept before", name(chain)),
    );
    quote(&mut draft, &failed);
    draft.misses(format!(
        "which rules accept something (`nft list chain {}`)",
        name(chain)
    ));
    draft.next(format!(
        "Put rules that accept what is wanted into {} or set its policy back to accept (`nft \
         chain {} '{{ policy accept; }}'`)",
        name(chain),
        name(chain)
    ));
    Some(draft)
}

/// A chain drops by default and has no rule that lets anything through: nothing of this device can leave or come back.
fn closed(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
    let seen = view.now().filter.as_ref()?;
    let lets_through = |rule: &FilterRule| {
        rule.verdict.as_deref().is_some_and(|verdict| {
            ["accept", "jump", "goto", "return", "queue"]
                .iter()
                .any(|word| verdict.starts_with(word))
        })
    };
    let chain = seen.value.iter().find(|chain| {
        chain.policy.as_deref() == Some("drop")
            && matches!(chain.hook.as_deref(), Some("input" | "output"))
            && !chain.rules.iter().any(lets_through)
    })?;
    let failed: Vec<&Failed> = failed.iter().collect();
    let summary = format!("The chain {} lets nothing through", name(chain));
    let mut draft = blamed(&name(chain), &failed, summary);
    let fact = format!(
        "the policy of {} is drop and none of its {} rules accepts anything",
        name(chain),
        chain.rules.len()
    );
    draft.shown("filter", "policy", seen.at, fact);
    quote(&mut draft, &failed);
    if something_answers(view) {
        let fact = "something answers all the same: another chain may decide first";
        draft.contradicted("reach", seen.at, fact.into());
    }
    draft.misses("all chains of that hook in their order (`nft list ruleset`)");
    draft.next(format!(
        "Put rules that accept what is wanted into {}, established connections first",
        name(chain)
    ));
    Some(draft)
}

/// A router whose forward chain drops by default and has no rule that could let anything through: other chains can't
/// take that back (nft(8): a drop ends it, an accept is only said for one chain).
fn forwards_nothing(view: &View<'_>) -> Option<Draft> {
    let is_router = view
        .profile()
        .is_some_and(|profile| profile.value.role == Role::Router);
    let forwards = view
        .now()
        .forwarding
        .as_ref()
        .is_some_and(|seen| seen.value.ipv4 == Some(true));
    if !is_router || !forwards || default_route(view.routes(), Family::V4).is_none() {
        return None;
    }
    let seen = view.now().filter.as_ref()?;
    let chain = seen.value.iter().find(|chain| {
        ["inet", "ip"].contains(&chain.family.as_str())
            && chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
            && chain.rules.len() < RULES_READ
            && chain
                .rules
                .iter()
                .all(|rule| drops(rule) || only_counts(rule))
    })?;
    let mut draft = Draft::new(
        "firewall_drop",
        Layer::Path,
        name(chain),
        Severity::Critical,
        format!("The chain {} forwards nothing", name(chain)),
    );
    let fact = format!(
        "the policy of {} is drop and none of its {} rules accepts anything",
        name(chain),
        chain.rules.len()
    );
    draft.shown("filter", "policy", seen.at, fact);
    if let Some(profile) = view.profile() {
        let fact = "this device is configured as a router";
        draft.backed("profile", "role", profile.at, fact.into());
    }
    if let Some(forwarding) = &view.now().forwarding {
        let fact = "IPv4 forwarding is on";
        draft.backed("forwarding", "ipv4", forwarding.at, fact.into());
    }
    draft.explains("Hosts behind this router reach nothing on its other side");
    draft.misses("when the rules that accept were lost (the file from which they are loaded)");
    draft.next(format!(
        "Load the rules of {} again, or put rules that accept what is wanted into it, established connections first",
        name(chain)
    ));
    Some(draft)
}

/// A rule that does nothing but count. Others may let through in ways that their text doesn't tell.
fn only_counts(rule: &FilterRule) -> bool {
    rule.verdict.is_none() && rule.text.0.trim() == "counter"
}

fn something_answers(view: &View<'_>) -> bool {
    let echoes = view.now().reach.iter().flat_map(|seen| &seen.value);
    echoes
        .filter(|reach| !reach.target.is_loopback())
        .any(|reach| reach.received > 0)
}

fn blamed(component: &str, failed: &[&Failed], summary: String) -> Draft {
    // What never worked may be down by itself.
    let severity = if failed.iter().any(|failed| failed.before) {
        Severity::Critical
    } else {
        Severity::Warning
    };
    Draft::new("firewall_drop", Layer::Path, component, severity, summary)
}

/// All probes are one witness: the filter is what they have in common. What is dropped looks as if nobody answered.
fn quote(draft: &mut Draft, failed: &[&Failed]) {
    for failed in failed {
        let target = Some(failed.target.to_string());
        match failed.source {
            "dns" => {
                draft.covers("resolver_dead", target);
                draft.covers("dns_blocked", None);
                draft.covers("ntp_unreachable", None);
            }
            "connects" => draft.covers("ipv6_dead", None),
            _ => draft.covers("upstream_dead", None),
        }
    }
    for (place, failed) in failed.iter().take(PROBES).enumerate() {
        if place == 0 {
            draft.shown(failed.source, "probes", failed.at, failed.fact.clone());
        } else {
            draft.noted(failed.source, failed.at, failed.fact.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, DnsAnswer, Role};

    use crate::fixture::machine::{chain, history};
    use crate::fixture::{Evidence, RESOLVER, SECOND, kill_resolver, only, verdict};

    fn with(change: impl Fn(u64, &mut Evidence)) -> Vec<Evidence> {
        history(4, change)
    }

    fn block_dns(evidence: &mut Evidence) {
        for resolver in [RESOLVER, SECOND] {
            evidence.answers(resolver, DnsAnswer::Timeout);
        }
    }

    #[test]
    fn a_rule_that_counts_in_step_with_failing_probes_explains_them() {
        let rounds = with(|round, evidence| {
            let packets = if round > 1 { 10 * round } else { 0 };
            evidence.see(Body::Filter(vec![chain("output", "accept", packets)]));
            if round > 1 {
                block_dns(evidence);
            }
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "firewall_drop");
        assert_eq!(finding.component.0, "inet filter output");
        assert!(!finding.consequences.is_empty());
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn a_rule_that_names_the_silent_target_is_told_after_one_step_and_a_general_one_is_not() {
        let rounds = |text: &str| {
            let text = text.to_owned();
            history(2, move |round, evidence| {
                let mut output = chain("output", "accept", 9 * round);
                output.rules[0].text = aizen_protocol::private::Text(text.clone());
                evidence.see(Body::Filter(vec![output]));
                evidence.answers(RESOLVER, DnsAnswer::Timeout);
            })
        };
        let named = verdict(&rounds(&format!("ip daddr {RESOLVER} counter drop")));
        assert_eq!(only(&named).cause.0, "firewall_drop");
        let general = verdict(&rounds("counter drop"));
        assert_eq!(only(&general).cause.0, "resolver_dead");
    }

    #[test]
    fn a_router_whose_forward_chain_accepts_nothing_forwards_nothing() {
        let told = |role: Role, policy: &str, verdict_of_rule: Option<&str>| {
            let mut evidence = crate::fixture::healthy(1);
            let mut forward = chain("forward", policy, 0);
            forward.rules[0].verdict = verdict_of_rule.map(str::to_owned);
            forward.rules[0].text = "counter".into();
            evidence.see(Body::Filter(vec![forward]));
            evidence.profile.role = role;
            evidence.verdict()
        };
        let closed = told(Role::Router, "drop", None);
        let finding = only(&closed);
        assert_eq!(finding.cause.0, "firewall_drop");
        assert_eq!(finding.component.0, "inet filter forward");
        assert_eq!(told(Role::Host, "drop", None).findings, []);
        assert_eq!(told(Role::Router, "accept", None).findings, []);
        assert_eq!(told(Role::Router, "drop", Some("accept")).findings, []);
        assert_eq!(told(Role::Router, "drop", Some("jump docker")).findings, []);
    }

    #[test]
    fn noise_at_the_input_a_rule_that_stands_still_and_one_without_failures_do_not_alarm() {
        let dead = with(|round, evidence| {
            evidence.see(Body::Filter(vec![
                chain("input", "drop", 500 * round),
                chain("output", "accept", 70),
            ]));
            kill_resolver(evidence);
        });
        assert_eq!(only(&verdict(&dead)).cause.0, "resolver_dead");
        let well = with(|round, evidence| {
            evidence.see(Body::Filter(vec![chain("output", "accept", 9 * round)]));
        });
        assert_eq!(verdict(&well).findings, []);
        // It counts, but something else than what fails.
        for text in [
            "ct state invalid counter drop",
            "tcp dport 25 counter drop",
            "udp dport 5353 counter drop",
            "ip daddr { 192.168.0.0/16, 172.16.0.0/12 } counter drop",
        ] {
            let other = with(|round, evidence| {
                let mut output = chain("output", "accept", 9 * round);
                output.rules[0].text = aizen_protocol::private::Text(text.into());
                evidence.see(Body::Filter(vec![output]));
                evidence.answers(RESOLVER, DnsAnswer::Timeout);
            });
            assert_eq!(only(&verdict(&other)).cause.0, "resolver_dead", "{text}");
        }
    }

    #[test]
    fn a_chain_that_lets_nothing_through_explains_why_all_is_silent() {
        let rounds = with(|_, evidence| {
            evidence.see(Body::Filter(vec![chain("output", "drop", 0)]));
            evidence.silence_outside();
            evidence.silence(crate::fixture::GATEWAY);
        });
        let verdict = verdict(&rounds);
        assert!(
            verdict
                .findings
                .iter()
                .any(|finding| finding.cause.0 == "firewall_drop"),
            "{:#?}",
            verdict.findings
        );
    }

    #[test]
    fn a_policy_that_turned_to_drop_is_told_and_one_that_always_was_is_not() {
        let turned = with(|round, evidence| {
            let policy = if round > 2 { "drop" } else { "accept" };
            evidence.see(Body::Filter(vec![chain("input", policy, 3)]));
            if round > 2 {
                block_dns(evidence);
            }
        });
        let verdict_turned = verdict(&turned);
        assert_eq!(only(&verdict_turned).cause.0, "firewall_drop");
        let always = with(|_, evidence| {
            let mut input = chain("input", "drop", 3);
            let mut accept = input.rules[0].clone();
            accept.verdict = Some("accept".into());
            input.rules.insert(0, accept);
            evidence.see(Body::Filter(vec![input]));
            evidence.answers(RESOLVER, DnsAnswer::Timeout);
        });
        assert_eq!(only(&verdict(&always)).cause.0, "resolver_dead");
    }
}
