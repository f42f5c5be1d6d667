//! Connection tracking: a full table, and translation that finds no free port.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Connect, ConnectOutcome, Conntrack};

use super::draft::{Draft, Examined, Layer};
use super::trend::{self, Step, percent};
use crate::case::{Seen, View};
use crate::repair;

/// From here on the table is as good as full, percent.
const FULL: u64 = 95;
/// Below this it has room, percent.
const ROOM: u64 = 80;
/// Failed insertions a second; two packets that race for one entry fail now and then on every router.
const FAILED_PER_SECOND: u64 = 1;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = view
        .now()
        .conntrack
        .as_ref()
        .filter(|seen| seen.value.max > 0)
    else {
        return examined;
    };
    let used = percent(seen.value.count.into(), seen.value.max.into());
    if used >= FULL {
        examined.drafts.push(full(view, seen));
    } else if let Some(draft) = ports_exhausted(view, seen).filter(|_| used < ROOM) {
        examined.drafts.push(draft);
    } else {
        examined.well.push(format!(
            "The connection tracking table has room: {} of {} entries",
            seen.value.count, seen.value.max
        ));
    }
    examined
}

fn fact(table: &Conntrack) -> String {
    format!(
        "{} of {} connection tracking entries are in use",
        table.count, table.max
    )
}

/// Packets for which no entry could be made.
fn refused(step: &Step<'_, Conntrack>) -> Option<u64> {
    let drop = step.grew(|table| table.drop)?;
    let early = step.grew(|table| table.early_drop)?;
    Some(drop + early)
}

fn full(view: &View<'_>, seen: &Seen<Conntrack>) -> Draft {
    let step = trend::steps(view, |pass| pass.conntrack.as_ref(), 1)
        .and_then(|steps| steps.into_iter().next());
    let lost = step
        .as_ref()
        .and_then(|step| Some((step.at, refused(step)?)));
    let severity = match lost {
        Some((_, 1..)) => Severity::Critical,
        Some(_) | None => Severity::Warning,
    };
    let mut draft = Draft::new(
        "conntrack_full",
        Layer::Path,
        "conntrack",
        severity,
        format!(
            "The connection tracking table is full: {} of {} entries",
            seen.value.count, seen.value.max
        ),
    );
    draft.shown("conntrack", "count", seen.at, fact(&seen.value));
    match lost {
        Some((at, packets @ 1..)) => {
            let fact = format!(
                "{packets} packets were dropped since the round before because no entry was free"
            );
            draft.backed("conntrack", "drop", at, fact);
        }
        Some((at, _)) => draft.contradicted(
            "conntrack",
            at,
            "no packet was dropped for want of an entry since the round before".into(),
        ),
        None => {}
    }
    if let Some(step) =
        step.filter(|step| percent(step.before.count.into(), step.before.max.into()) >= FULL)
    {
        let fact = format!("{} in the round before", fact(step.before));
        draft.backed("conntrack", "earlier", step.from, fact);
    }
    let half_open = view
        .now()
        .protocols
        .as_ref()
        .and_then(|seen| Some((seen.at, *seen.value.tcp_states.get("syn_recv")?)));
    if let Some((at, count)) =
        half_open.filter(|(_, count)| u64::from(*count) * 2 >= u64::from(seen.value.count))
    {
        let fact =
            format!("{count} connections to this device are half open: a flood may fill the table");
        draft.contradicted("protocols", at, fact);
    }
    draft.explains("New connections fail while those that exist go on");
    draft.misses(
        "which host holds the most entries (`conntrack -L | sort` by source, `aizen conntrack`)",
    );
    draft.propose(repair::parameter::raise_conntrack(view, seen.value.max));
    let meanwhile = if draft.has_proposal() {
        "raise nf_conntrack_max as proposed"
    } else {
        "shorten nf_conntrack_tcp_timeout_established, since the memory allows no larger table"
    };
    draft.next(format!(
        "Find the host that holds the most entries (`conntrack -L`); until then {meanwhile}"
    ));
    draft
}

/// Insertions fail again and again although there is room: translation finds no free port.
fn ports_exhausted(view: &View<'_>, seen: &Seen<Conntrack>) -> Option<Draft> {
    if !translates(view) {
        return None;
    }
    let steps = trend::steps(view, |pass| pass.conntrack.as_ref(), 2)?;
    let failed: Vec<u64> = steps
        .iter()
        .map(|step| {
            step.grew(|table| table.insert_failed)
                .filter(|failed| *failed > FAILED_PER_SECOND * step.seconds())
        })
        .collect::<Option<_>>()?;
    let silent = view.now().connects.as_ref().and_then(|seen| {
        let timeout = |connect: &&Connect| connect.outcome == ConnectOutcome::Timeout;
        Some((seen.at, seen.value.iter().find(timeout)?))
    });
    let mut draft = Draft::new(
        "nat_port_exhaustion",
        Layer::Path,
        "conntrack",
        if silent.is_some() {
            Severity::Critical
        } else {
            Severity::Warning
        },
        "Address translation finds no free port for new connections".into(),
    );
    for (step, failed) in steps.iter().zip(failed) {
        let fact = format!(
            "{failed} insertions failed within {} s while {}",
            step.seconds(),
            fact(step.after)
        );
        draft.shown("conntrack", "insert_failed", step.at, fact);
    }
    draft.noted("conntrack", seen.at, fact(&seen.value));
    if let Some((at, connect)) = silent {
        let fact = format!(
            "a new TCP connection to {} port {} met silence",
            connect.target, connect.port
        );
        draft.backed("connects", "timeout", at, fact);
    }
    draft.explains("New connections to busy destinations fail while others work");
    draft.misses(
        "how many ports towards one destination are taken (`conntrack -L -d` the busiest \
         destination)",
    );
    draft.next(
        "Find the host with the most connections to one destination (`conntrack -L`), then add a \
         second public address or widen the port range of the masquerading rule",
    );
    Some(draft)
}

/// False only where the packet filter was read and translates nothing.
fn translates(view: &View<'_>) -> bool {
    view.now().filter.as_ref().is_none_or(|seen| {
        let mut rules = seen.value.iter().flat_map(|chain| &chain.rules);
        rules.any(|rule| {
            let words = [rule.verdict.as_deref().unwrap_or(""), rule.text.0.as_str()];
            words.iter().any(|text| {
                ["masquerade", "snat", "MASQUERADE", "SNAT"]
                    .iter()
                    .any(|word| text.contains(word))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};
    use aizen_protocol::record::{Body, Conntrack};

    use crate::fixture::machine::{conntrack, history};
    use crate::fixture::{Evidence, only, verdict};

    fn with(table: impl Fn(u64) -> Conntrack) -> Vec<Evidence> {
        history(4, |round, evidence| {
            evidence.see(Body::Conntrack(table(round)));
        })
    }

    #[test]
    fn a_full_table_that_drops_is_doubled_within_the_memory() {
        let rounds = with(|round| Conntrack {
            count: 16_300,
            drop: 100 * round,
            ..conntrack(round)
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (
                finding.cause.0.as_str(),
                finding.severity,
                finding.confidence
            ),
            ("conntrack_full", Severity::Critical, Confidence::Certain)
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net.netfilter.nf_conntrack_max=32768\n"),
            "{script}"
        );
    }

    #[test]
    fn a_small_device_gets_no_larger_table_than_its_memory_bears() {
        let mut rounds = with(|round| Conntrack {
            count: 16_384,
            drop: 100 * round,
            ..conntrack(round)
        });
        for evidence in &mut rounds {
            evidence.host.memory_total_bytes = 64 << 20;
        }
        let finding = verdict(&rounds);
        assert_eq!(only(&finding).proposal, None);
    }

    #[test]
    fn old_drops_a_few_races_and_a_table_that_is_used_well_do_not_alarm() {
        let tables: [fn(u64) -> Conntrack; 4] = [
            conntrack,
            |round| Conntrack {
                drop: 1_000_000,
                ..conntrack(round)
            },
            |round| Conntrack {
                count: 15_000,
                insert_failed: 4 * round,
                clash: 400 * round,
                ..conntrack(round)
            },
            |round| Conntrack {
                max: 0,
                ..conntrack(round)
            },
        ];
        for table in tables {
            assert_eq!(verdict(&with(table)).findings, []);
        }
    }

    #[test]
    fn insertions_that_keep_failing_with_room_left_are_a_want_of_ports_unless_nothing_is_translated()
     {
        let failing = |round| Conntrack {
            insert_failed: 500 * round,
            ..conntrack(round)
        };
        let mut rounds = with(failing);
        assert_eq!(only(&verdict(&rounds)).cause.0, "nat_port_exhaustion");
        // In one step only.
        let once = with(|round| Conntrack {
            insert_failed: if round > 3 { 500 } else { 0 },
            ..conntrack(round)
        });
        assert_eq!(verdict(&once).findings, []);
        for (round, evidence) in (1_u64..).zip(&mut rounds) {
            evidence.see(Body::Filter(vec![crate::fixture::machine::chain(
                "input", "drop", round,
            )]));
        }
        assert_eq!(verdict(&rounds).findings, []);
    }
}
