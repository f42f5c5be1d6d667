//! Since when a fault holds: the first of the rounds in a row that show it, or the change that the device remembers.

use aizen_protocol::record::ChangeKind;
use jiff::Timestamp;

use super::draft::Draft;
use super::judge;
use crate::case::{Case, View};

/// When each fault began. A pass that lacks one of the collectors that it rests on neither holds nor breaks the run.
pub(super) fn beginnings(case: &Case, view: &View<'_>, roots: &[Draft]) -> Vec<Timestamp> {
    let now = view.now().ended.at;
    let mut first: Vec<Timestamp> = roots
        .iter()
        .map(|draft| draft.first_reading().unwrap_or(now))
        .collect();
    let mut open: Vec<usize> = (0..roots.len()).collect();
    for older in (0..case.passes().saturating_sub(1))
        .rev()
        .map_while(|index| case.view(index))
    {
        if open.is_empty() {
            break;
        }
        let tells = |index: &usize| {
            roots[*index]
                .sources()
                .all(|source| older.now().has(source))
        };
        if !open.iter().any(tells) {
            continue;
        }
        // One judgement of a pass serves all faults.
        let (held, _) = judge(&older);
        open.retain(|&index| {
            if !tells(&index) {
                return true;
            }
            let same = held.iter().find(|draft| draft.is_same_fault(&roots[index]));
            // Rounds are in order even where the clock was set back: the older one's time counts as it stands.
            if let Some(at) = same.and_then(Draft::first_reading) {
                first[index] = at;
            }
            same.is_some()
        });
    }
    for (first, draft) in first.iter_mut().zip(roots) {
        if let Some(at) = remembered(view, draft, *first) {
            *first = at;
        }
    }
    first
}

/// Kinds of change that begin a fault, and those that end it.
fn kinds(cause: &str) -> Option<(&'static [ChangeKind], &'static [ChangeKind])> {
    use ChangeKind as C;
    Some(match cause {
        "link_down" => (
            &[C::CarrierLost, C::LinkDown, C::LinkRemoved],
            &[C::CarrierBack, C::LinkAdded],
        ),
        "link_admin_down" => (&[C::LinkDown], &[C::LinkUp, C::LinkAdded]),
        "no_default_route" => (&[C::DefaultRouteRemoved], &[C::DefaultRouteAdded]),
        _ => return None,
    })
}

/// The oldest change before `first` that began this fault and was not taken back since. Changes of an earlier boot say
/// nothing.
fn remembered(view: &View<'_>, draft: &Draft, first: Timestamp) -> Option<Timestamp> {
    let (began, ended) = kinds(draft.cause())?;
    let history = &view.now().history.as_ref()?.value;
    let is_whole_device = draft.cause() == "no_default_route";
    let concerns = |component: &str| is_whole_device || draft.is_about(component);
    history
        .changes
        .iter()
        .rev()
        .filter(|change| change.at < first)
        .take_while(|change| {
            change.kind != ChangeKind::Booted
                && !(ended.contains(&change.kind) && concerns(&change.component.0))
        })
        .filter(|change| began.contains(&change.kind) && concerns(&change.component.0))
        .last()
        .map(|change| change.at)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::private::Text;
    use aizen_protocol::record::{Body, Change, History};
    use jiff::SignedDuration;

    use super::*;
    use crate::fixture::{at, healthy, lose_default_route, only, pull_cable};

    fn ago(seconds: i64, kind: ChangeKind, component: &str) -> Change {
        Change {
            at: at(1) - SignedDuration::from_secs(seconds),
            kind,
            component: Text(component.into()),
        }
    }

    /// Since when a pulled cable is told, in seconds before the only round.
    fn age(changes: Vec<Change>) -> i64 {
        let mut broken = healthy(1);
        pull_cable(&mut broken);
        broken.extra.push(Body::History(History {
            series: vec![],
            changes,
        }));
        at(1)
            .duration_since(only(&broken.verdict()).since)
            .as_secs()
    }

    #[test]
    fn a_carrier_that_went_before_the_first_round_dates_the_fault() {
        use ChangeKind as C;
        assert_eq!(age(vec![ago(900, C::CarrierLost, "wan")]), 900);
        assert_eq!(
            age(vec![
                ago(900, C::CarrierLost, "wan"),
                ago(800, C::CarrierLost, "lan"),
                ago(60, C::LinkDown, "wan"),
            ]),
            900
        );
    }

    #[test]
    fn changes_that_were_taken_back_or_are_about_something_else_date_nothing() {
        use ChangeKind as C;
        let lost = || ago(900, C::CarrierLost, "wan");
        assert_eq!(age(vec![lost(), ago(800, C::CarrierBack, "wan")]), 0);
        assert_eq!(age(vec![lost(), ago(800, C::Booted, "")]), 0);
        assert_eq!(age(vec![ago(900, C::CarrierLost, "lan")]), 0);
        assert_eq!(age(vec![ago(900, C::AddressRemoved, "wan")]), 0);
        assert_eq!(age(vec![ago(-60, C::CarrierLost, "wan")]), 0);
        assert_eq!(
            age(vec![
                lost(),
                ago(800, C::CarrierBack, "wan"),
                ago(300, C::CarrierLost, "wan"),
            ]),
            300
        );
    }

    #[test]
    fn a_default_route_that_went_long_ago_dates_its_absence() {
        let mut broken = healthy(1);
        lose_default_route(&mut broken);
        broken.extra.push(Body::History(History {
            series: vec![],
            changes: vec![ago(3600, ChangeKind::DefaultRouteRemoved, "wan")],
        }));
        let since = only(&broken.verdict()).since;
        assert_eq!(at(1).duration_since(since).as_secs(), 3600);
    }
}
