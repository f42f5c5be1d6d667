//! What was tried over the network.

use std::collections::BTreeMap;

use aizen_protocol::record::{
    Certificate, Connect, DnsProbe, Load, LoadDirection, PathMtu, Portal, Reach, Time, TlsOutcome,
    Trace,
};

use super::leases::seconds;
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

    pub(super) fn path_mtu(&mut self, paths: &[PathMtu]) {
        let of = |path: &PathMtu| -> Labels { vec![("target", path.target.to_string().into())] };
        self.gauge(
            "aizen_path_mtu_bytes",
            "Largest packet that came back without fragmentation.",
            paths
                .iter()
                .filter_map(|path| Some((of(path), f64::from(path.largest_answered?)))),
        );
    }

    pub(super) fn connects(&mut self, connects: &[Connect]) {
        let of = |connect: &Connect| -> Labels {
            vec![
                ("target", connect.target.to_string().into()),
                ("port", connect.port.to_string().into()),
            ]
        };
        self.gauge(
            "aizen_tcp_connect_success",
            "1 if a TCP connection was made in the newest round.",
            connects
                .iter()
                .map(|c| (of(c), f64::from(u8::from(c.rtt_us.is_some())))),
        );
        self.gauge(
            "aizen_tcp_connect_seconds",
            "How long it took.",
            connects
                .iter()
                .filter_map(|c| Some((of(c), f64::from(c.rtt_us?) / 1e6))),
        );
    }

    pub(super) fn traces(&mut self, traces: &[Trace]) {
        let of = |trace: &Trace| -> Labels { vec![("target", trace.target.to_string().into())] };
        let hops = |trace: &Trace| trace.hops.iter().map(|hop| hop.ttl).max();
        self.gauge(
            "aizen_trace_hops",
            "Hops of the path that was traced last.",
            traces
                .iter()
                .filter_map(|trace| Some((of(trace), f64::from(hops(trace)?)))),
        );
        self.gauge(
            "aizen_trace_reached",
            "1 if the target answered.",
            traces
                .iter()
                .map(|trace| (of(trace), f64::from(u8::from(trace.reached)))),
        );
    }

    pub(super) fn load(&mut self, loads: &[Load]) {
        let of = |load: &Load| -> Labels {
            let direction = match load.direction {
                Some(LoadDirection::Down) => "down",
                Some(LoadDirection::Up) => "up",
                None => "both",
            };
            vec![
                ("target", load.target.to_string().into()),
                ("direction", direction.into()),
            ]
        };
        self.gauge(
            "aizen_loaded_round_trip_seconds",
            "Median round trip while the line is loaded.",
            loads
                .iter()
                .filter_map(|load| Some((of(load), median_seconds(&load.loaded_us)?))),
        );
        self.gauge(
            "aizen_load_bits_per_second",
            "What the transfer carried.",
            loads
                .iter()
                .map(|load| (of(load), float(load.bits_per_second))),
        );
    }

    pub(super) fn certificates(&mut self, certificates: &[Certificate]) {
        let of = |one: &Certificate| -> Labels {
            vec![
                ("host", one.host.to_string().into()),
                ("port", one.port.to_string().into()),
            ]
        };
        self.gauge(
            "aizen_certificate_trusted",
            "1 if the certificate of a host is trusted.",
            certificates.iter().map(|one| {
                let trusted = one.outcome == TlsOutcome::Trusted;
                (of(one), f64::from(u8::from(trusted)))
            }),
        );
        self.gauge(
            "aizen_certificate_expiry_timestamp_seconds",
            "When it ends.",
            certificates
                .iter()
                .filter_map(|one| Some((of(one), seconds(one.not_after?)))),
        );
    }

    pub(super) fn portal(&mut self, portal: &Portal) {
        self.gauge(
            "aizen_portal_expected_answer",
            "1 if the web answered as it does where nothing walls it off.",
            [(Labels::new(), f64::from(u8::from(portal.expected)))],
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
