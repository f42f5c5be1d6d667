//! A forwarder on this device that asks itself.

use jiff::Timestamp;

use crate::case::View;
use crate::expert::question::Tally;
use crate::expert::trend;

/// Packets a second over the loopback that no ordinary device sends itself.
const PACKETS: u64 = 500;

/// Traffic of a loop: the local resolver serves nothing, while this device sends itself packets without end.
pub(super) fn traffic(view: &View<'_>, tally: &Tally) -> Option<(Timestamp, String)> {
    if !tally.resolver.is_loopback() || tally.refused > 0 {
        return None;
    }
    let step = trend::steps(view, |pass| pass.links.as_ref(), 1)?.pop()?;
    let counted = |links: &[aizen_protocol::record::Link]| {
        let link = links.iter().find(|link| link.loopback)?;
        Some(link.counters?.rx_packets)
    };
    let rate = counted(step.after)?.checked_sub(counted(step.before)?)? / step.seconds();
    let fact = format!(
        "this device sends itself {rate} packets a second while {} serves nothing: the forwarder \
         asks itself",
        tally.resolver
    );
    (rate >= PACKETS).then_some((step.at, fact))
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{DnsAnswer, LinkCounters};

    use crate::fixture::machine::history;
    use crate::fixture::{Evidence, SECOND, dns, ip, only, verdict};

    fn local(packets: u64, answer: DnsAnswer) -> Vec<Evidence> {
        history(2, move |round, evidence| {
            evidence.resolvers.configured = vec![ip("127.0.0.1")];
            evidence.resolvers.alternates = vec![ip(SECOND)];
            evidence.dns = vec![
                dns("127.0.0.1", true, &[answer; 5], 0),
                dns(SECOND, false, &[DnsAnswer::Rcode(0); 5], 9_000),
            ];
            evidence.link(1).counters = Some(LinkCounters {
                rx_packets: packets * round,
                ..LinkCounters::default()
            });
        })
    }

    #[test]
    fn a_forwarder_that_times_out_amid_traffic_to_itself_is_a_loop() {
        let looping = verdict(&local(90_000, DnsAnswer::Timeout));
        assert_eq!(only(&looping).cause.0, "resolver_loop");
        let quiet = verdict(&local(40, DnsAnswer::Timeout));
        assert_eq!(only(&quiet).cause.0, "resolver_dead");
        // A resolver that serves may well be busy.
        assert_eq!(verdict(&local(90_000, DnsAnswer::Rcode(0))).findings, []);
    }
}
