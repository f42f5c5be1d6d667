//! What was tried over the network.

use std::collections::BTreeMap;

use aizen_protocol::record::{DnsProbe, Reach, Time};

use super::{Labels, Made, float};

impl Made {
    pub(super) fn reach(&mut self, reach: &[Reach]) {
        let of = |r: &Reach| -> Labels { vec![("target", r.target.to_string().into())] };
        self.gauge(
            "aizen_echo_sent",
            "Echo requests of the newest round.",
            reach.iter().map(|r| (of(r), f64::from(r.sent))),
        );
        self.gauge(
            "aizen_echo_received",
            "Echo replies of the newest round.",
            reach.iter().map(|r| (of(r), f64::from(r.received))),
        );
        self.gauge(
            "aizen_echo_round_trip_seconds",
            "Median round trip of the newest round.",
            reach
                .iter()
                .filter_map(|r| Some((of(r), median_seconds(&r.rtt_us)?))),
        );
    }

    pub(super) fn dns(&mut self, probes: &[DnsProbe]) {
        // One resolver is asked for several things: they are added up, so that labels stay few.
        let mut resolvers: BTreeMap<String, (u32, Vec<u32>)> = BTreeMap::new();
        for probe in probes {
            let (asked, times) = resolvers.entry(probe.resolver.to_string()).or_default();
            *asked = asked.saturating_add(u32::try_from(probe.answers.len()).unwrap_or(u32::MAX));
            times.extend_from_slice(&probe.rtt_us);
        }
        let of = |resolver: &String| -> Labels { vec![("resolver", resolver.clone().into())] };
        self.gauge(
            "aizen_dns_questions",
            "Questions of the newest round.",
            resolvers
                .iter()
                .map(|(r, (asked, _))| (of(r), f64::from(*asked))),
        );
        self.gauge(
            "aizen_dns_answers",
            "Answers of the newest round.",
            resolvers
                .iter()
                .map(|(r, (_, times))| (of(r), float(times.len().try_into().unwrap_or(u64::MAX)))),
        );
        self.gauge(
            "aizen_dns_round_trip_seconds",
            "Median time to an answer in the newest round.",
            resolvers
                .iter()
                .filter_map(|(r, (_, times))| Some((of(r), median_seconds(times)?))),
        );
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "an offset of weeks keeps its milliseconds"
    )]
    pub(super) fn time(&mut self, time: &Time) {
        let samples = time.servers.iter().filter_map(|server| {
            let labels = vec![("server", server.server.to_string().into())];
            Some((labels, server.offset_ms? as f64 / 1000.0))
        });
        self.gauge(
            "aizen_clock_offset_seconds",
            "A time server's clock minus this device's.",
            samples,
        );
    }
}

fn median_seconds(times_us: &[u32]) -> Option<f64> {
    let mut sorted = times_us.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::from(*median) / 1e6)
}
