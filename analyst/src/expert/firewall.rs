//! The device's own packet filter drops what it should let through.
//!
//! Input chains drop the noise of the internet on every healthy router: only what leaves the device, or a policy that
//! changed, is held against the probes.

mod chain;
mod failed;
mod rule;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{FilterChain, FilterRule};

use self::failed::Failed;
use super::draft::{Draft, Examined, Layer};
use crate::case::View;

/// Facts about probes that a finding quotes.
const PROBES: usize = 4;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().filter else {
        return examined;
    };
    let failed = failed::failed(view);
    if !failed.is_empty() {
        examined.drafts.extend(rule::counting_rule(view, &failed));
        if examined.drafts.is_empty() {
            let draft = chain::policy(view, &failed).or_else(|| chain::closed(view, &failed));
            examined.drafts.extend(draft);
        }
    }
    examined.drafts.extend(chain::forwards_nothing(view));
    if examined.drafts.is_empty() {
        examined.well.push(format!(
            "No packet filter rule drops what this device tried ({} chains read)",
            seen.value.len()
        ));
    }
    examined
}

fn drops(rule: &FilterRule) -> bool {
    rule.verdict
        .as_deref()
        .is_some_and(|verdict| verdict.starts_with("drop") || verdict.starts_with("reject"))
}

fn name(chain: &FilterChain) -> String {
    format!("{} {} {}", chain.family, chain.table, chain.chain)
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
