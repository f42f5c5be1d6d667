//! Chains that drop by default: since a while, for everything, or for all that is forwarded.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{FilterChain, FilterRule, Role};

use super::failed::Failed;
use super::{blamed, drops, name, quote};
use crate::case::{Family, View, default_route};
use crate::expert::draft::{Draft, Layer};
use crate::expert::trend;

/// Rules of a chain that are read; with so many it may go on.
const RULES_READ: usize = 256;

/// A chain began to drop by default, and what answered before fails since.
pub(super) fn policy(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
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
pub(super) fn closed(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
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
pub(super) fn forwards_nothing(view: &View<'_>) -> Option<Draft> {
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
