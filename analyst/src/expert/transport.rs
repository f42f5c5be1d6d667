//! TCP that sends again too often, and UDP that finds its buffers full: warnings, and only well above what is usual.

use aizen_protocol::finding::Severity;

use super::draft::{Draft, Examined, Layer};
use super::trend::{self, percent};
use crate::case::View;

/// Segments in a step below which a share says nothing.
const SEGMENTS: u64 = 1_000;
/// Share of segments that are sent again, percent; 1 to 3 are usual.
const AGAIN_PERCENT: u64 = 10;
/// Loss of echoes above which the loss itself is the matter, percent.
const LOSS_PERCENT: u64 = 5;
/// Datagrams in a step that found no room, and their share in percent.
const NO_ROOM: u64 = 100;
const NO_ROOM_PERCENT: u64 = 2;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    examined.drafts.extend(retransmissions(view));
    examined.drafts.extend(buffers(view));
    if examined.drafts.is_empty() && trend::steps(view, |pass| pass.protocols.as_ref(), 1).is_some()
    {
        examined
            .well
            .push("TCP and UDP lose no unusual share".into());
    }
    examined
}

fn retransmissions(view: &View<'_>) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.protocols.as_ref(), 2)?;
    let shares: Vec<(u64, u64)> = steps
        .iter()
        .map(|step| {
            Some((
                step.counter("Tcp.RetransSegs")?,
                step.counter("Tcp.OutSegs")?,
            ))
        })
        .collect::<Option<_>>()?;
    let is_high =
        |(again, sent): &(u64, u64)| *sent >= SEGMENTS && percent(*again, *sent) >= AGAIN_PERCENT;
    let (lost, sent, at) = echoes(view)?;
    if !shares.iter().all(is_high) || percent(lost, sent) >= LOSS_PERCENT {
        return None;
    }
    let mut draft = Draft::new(
        "retransmissions",
        Layer::Path,
        "tcp",
        Severity::Warning,
        "TCP sends an unusual share of its segments again, while echoes are not lost".into(),
    );
    for (step, (again, sent)) in steps.iter().zip(&shares) {
        let fact = format!(
            "{again} of {sent} TCP segments were sent again within {} s",
            step.seconds()
        );
        draft.shown("protocols", "retransmissions", step.at, fact);
    }
    draft.backed(
        "reach",
        "echoes",
        at,
        format!("{lost} of {sent} echo requests to targets that answer were lost"),
    );
    draft.explains("Transfers are slow although small packets pass");
    draft.misses(
        "towards whom they are sent again (`ss -ti`), and whether large packets pass (`aizen \
         ping -s`)",
    );
    draft.next(
        "Look which connections send again (`ss -ti | grep retrans`) and follow the path to \
         their other end (`aizen trace`)",
    );
    Some(draft)
}

/// Lost and sent echoes of this pass to targets that answer at all.
fn echoes(view: &View<'_>) -> Option<(u64, u64, jiff::Timestamp)> {
    let seen = view.now().reach.as_ref()?;
    let answering = || seen.value.iter().filter(|reach| reach.received > 0);
    let sent: u64 = answering().map(|reach| u64::from(reach.sent)).sum();
    let received: u64 = answering().map(|reach| u64::from(reach.received)).sum();
    (sent > 0).then_some((sent.saturating_sub(received), sent, seen.at))
}

fn buffers(view: &View<'_>) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.protocols.as_ref(), 2)?;
    let counts: Vec<(u64, u64)> = steps
        .iter()
        .map(|step| {
            let errors =
                step.counter("Udp.RcvbufErrors")? + step.counter("Udp.SndbufErrors").unwrap_or(0);
            Some((errors, step.counter("Udp.InDatagrams")?))
        })
        .collect::<Option<_>>()?;
    let is_high = |(errors, received): &(u64, u64)| {
        *errors >= NO_ROOM && percent(*errors, errors + received) >= NO_ROOM_PERCENT
    };
    if !counts.iter().all(is_high) {
        return None;
    }
    let mut draft = Draft::new(
        "udp_buffer_errors",
        Layer::Path,
        "udp",
        Severity::Warning,
        "UDP datagrams are lost on this device because a program reads them too slowly".into(),
    );
    for (step, (errors, received)) in steps.iter().zip(&counts) {
        let fact = format!(
            "{errors} datagrams found a full buffer and {received} were delivered within {} s",
            step.seconds()
        );
        draft.shown("protocols", "buffers", step.at, fact);
    }
    draft.explains("DNS, logs, calls or VPN packets are lost on the device itself");
    draft.misses("which socket drops (`ss -uamn`, column d of skmem)");
    draft.next(
        "Find the socket that drops (`ss -uamn`) and give its program more processor time or a \
         larger receive buffer",
    );
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, Protocols};

    use crate::fixture::machine::{history, protocols};
    use crate::fixture::{Evidence, only, verdict};

    fn with(change: impl Fn(u64, &mut Protocols)) -> Vec<Evidence> {
        history(4, |round, evidence| {
            let mut seen = protocols(round);
            change(round, &mut seen);
            evidence.reach.iter_mut().for_each(|reach| {
                if reach.received > 0 {
                    reach.received = reach.sent;
                }
            });
            evidence.see(Body::Protocols(seen));
        })
    }

    fn count(seen: &mut Protocols, counter: &str, value: u64) {
        seen.counters.insert(counter.into(), value);
    }

    #[test]
    fn a_quarter_sent_again_without_lost_echoes_warns() {
        let mut rounds = with(|round, seen| count(seen, "Tcp.RetransSegs", 5_000 * round));
        assert_eq!(only(&verdict(&rounds)).cause.0, "retransmissions");
        // Loss of everything is another matter.
        for reach in rounds.iter_mut().flat_map(|evidence| &mut evidence.reach) {
            if reach.received > 0 {
                reach.received = 3;
            }
        }
        assert_eq!(verdict(&rounds).findings, []);
    }

    #[test]
    fn full_udp_buffers_in_two_steps_warn() {
        let rounds = with(|round, seen| count(seen, "Udp.RcvbufErrors", 900 * round));
        assert_eq!(only(&verdict(&rounds)).cause.0, "udp_buffer_errors");
    }

    #[test]
    fn a_few_retransmits_totals_one_burst_and_an_idle_device_do_not_alarm() {
        let look_alikes: [fn(u64, &mut Protocols); 5] = [
            |_, _| {},
            |_, seen| count(seen, "Tcp.RetransSegs", 9_000_000),
            |round, seen| count(seen, "Tcp.RetransSegs", if round == 4 { 9_000 } else { 0 }),
            |round, seen| {
                count(seen, "Tcp.OutSegs", 10 * round);
                count(seen, "Tcp.RetransSegs", 5 * round);
            },
            |round, seen| count(seen, "Udp.RcvbufErrors", 20 * round),
        ];
        for change in look_alikes {
            assert_eq!(verdict(&with(change)).findings, []);
        }
    }
}
