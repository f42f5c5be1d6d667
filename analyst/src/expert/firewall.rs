//! The device's own packet filter drops what it should let through.
//!
//! Input chains drop the noise of the internet on every healthy router: only what leaves the device, or a policy that
//! changed, is held against the probes.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{ConnectOutcome, DnsAnswer, DnsPurpose, FilterChain, FilterRule};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::trend::{self, Step};
use crate::case::{Pass, View};

/// Faults that a filter may feign: what it drops looks as if nobody answered.
const FEIGNED: [&str; 7] = [
    "resolver_dead",
    "resolver_localhost_dead",
    "dns_blocked",
    "ntp_unreachable",
    "upstream_dead",
    "gateway_dead",
    "ipv6_dead",
];
/// Facts about probes that a finding quotes.
const PROBES: usize = 4;

/// A probe that this device sent and that nobody answered.
struct Failed {
    source: &'static str,
    at: Timestamp,
    fact: String,
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().filter else {
        return examined;
    };
    let failed = failed(view.now());
    if !failed.is_empty() {
        examined.drafts.extend(counting_rule(view, &failed));
        if examined.drafts.is_empty() {
            examined.drafts.extend(policy(view, &failed));
        }
    }
    if examined.drafts.is_empty() {
        examined.well.push(format!(
            "No packet filter rule drops what this device tried ({} chains read)",
            seen.value.len()
        ));
    }
    examined
}

/// What was tried in this pass without any answer.
fn failed(pass: &Pass) -> Vec<Failed> {
    let mut all = Vec::new();
    if let Some(seen) = &pass.dns {
        let lookups = seen.value.iter().filter(|probe| {
            probe.purpose == DnsPurpose::Lookup
                && !probe.answers.is_empty()
                && probe
                    .answers
                    .iter()
                    .all(|answer| matches!(answer, DnsAnswer::Timeout | DnsAnswer::Unreachable))
        });
        all.extend(lookups.map(|probe| Failed {
            source: "dns",
            at: seen.at,
            fact: format!(
                "{} answered none of {} questions",
                probe.resolver,
                probe.answers.len()
            ),
        }));
    }
    if let Some(seen) = &pass.connects {
        let connects = seen.value.iter().filter(|connect| {
            matches!(
                connect.outcome,
                ConnectOutcome::Timeout | ConnectOutcome::Unreachable
            )
        });
        all.extend(connects.map(|connect| Failed {
            source: "connects",
            at: seen.at,
            fact: format!(
                "no TCP connection to {} port {}",
                connect.target, connect.port
            ),
        }));
    }
    if let Some(seen) = &pass.reach {
        let silent = seen
            .value
            .iter()
            .filter(|reach| reach.sent > 0 && reach.received == 0);
        all.extend(silent.map(|reach| Failed {
            source: "reach",
            at: seen.at,
            fact: format!(
                "{} answered none of {} echo requests",
                reach.target, reach.sent
            ),
        }));
    }
    all
}

fn drops(rule: &FilterRule) -> bool {
    rule.verdict
        .as_deref()
        .is_some_and(|verdict| verdict.starts_with("drop") || verdict.starts_with("reject"))
}

fn name(chain: &FilterChain) -> String {
    format!("{} {} {}", chain.family, chain.table, chain.chain)
}

/// A rule for what leaves the device counts more packets in each of the last two steps, while probes fail.
fn counting_rule(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.filter.as_ref(), 2)?;
    let newest = steps.first()?;
    let outgoing = newest
        .after
        .iter()
        .filter(|chain| chain.hook.as_deref() == Some("output"));
    let (chain, rule, growth) = outgoing
        .flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
        .filter(|(_, rule)| drops(rule))
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
    let mut draft = blamed(
        &name(chain),
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
    quote(&mut draft, failed);
    draft.misses(format!(
        "that the packets dropped are those of the failing probes (`nft monitor trace`, rule {} of {})",
        rule.handle,
        name(chain)
    ));
    draft.next(format!(
        "Read rule {} of {} (`nft -a list chain {}`) and put a narrow accept above it if the traffic is wanted",
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
    let answered = view
        .this_boot()
        .filter(|pass| pass.ended.at <= accepted)
        .chain(view.this_boot())
        .any(|pass| self::failed(pass).len() < failed.len());
    if !answered {
        return None;
    }
    let mut draft = blamed(
        &name(chain),
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
    quote(&mut draft, failed);
    draft.misses(format!(
        "which rules accept something (`nft list chain {}`)",
        name(chain)
    ));
    draft.next(format!(
        "Put rules that accept what is wanted into {} or set its policy back to accept (`nft chain {} '{{ policy accept; }}'`)",
        name(chain),
        name(chain)
    ));
    Some(draft)
}

fn blamed(component: &str, summary: String) -> Draft {
    let mut draft = Draft::new(
        "firewall_drop",
        Layer::Path,
        component,
        Severity::Critical,
        summary,
    );
    for cause in FEIGNED {
        draft.covers(cause, None);
    }
    draft
}

/// All probes are one witness: the filter is what they have in common.
fn quote(draft: &mut Draft, failed: &[Failed]) {
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
    use aizen_protocol::record::{Body, DnsAnswer};

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
            evidence.dns.retain(|probe| probe.configured);
        });
        assert_eq!(verdict(&well).findings, []);
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
            evidence.see(Body::Filter(vec![chain("input", "drop", 3)]));
            kill_resolver(evidence);
        });
        assert_eq!(only(&verdict(&always)).cause.0, "resolver_dead");
    }
}
