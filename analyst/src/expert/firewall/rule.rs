//! A rule that drops in step with what fails.

use aizen_protocol::record::{FilterChain, FilterRule};

use super::failed::{Failed, may_concern, names_target};
use super::{blamed, drops, name, quote};
use crate::case::View;
use crate::expert::draft::Draft;
use crate::expert::trend::{self, Step};

/// A rule for what leaves the device counts more packets in each of the last two steps, while probes fail; for a rule
/// that names the target of the probe one step tells enough.
pub(super) fn counting_rule(view: &View<'_>, failed: &[Failed]) -> Option<Draft> {
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
