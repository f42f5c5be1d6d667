//! Leases, pools, and who answers on the links.

use aizen_protocol::record::{Dhcp, DhcpProbe, Lldp, PppoeProbe, RouterProbe};

use super::{Labels, Made, count};

impl Made {
    pub(super) fn dhcp(&mut self, dhcp: &Dhcp) {
        let expiries = dhcp.leases.iter().filter_map(|lease| {
            let labels: Labels = vec![
                ("link", lease.link.clone().into()),
                ("address", lease.address.to_string().into()),
            ];
            Some((labels, seconds(lease.expires?)))
        });
        self.gauge(
            "aizen_dhcp_lease_expiry_timestamp_seconds",
            "When a lease of this device ends.",
            expiries,
        );
        let of = |server: &str, first: std::net::IpAddr| -> Labels {
            vec![
                ("server", server.to_owned().into()),
                ("first", first.to_string().into()),
            ]
        };
        let sizes = dhcp
            .pools
            .iter()
            .map(|pool| (of(&pool.server, pool.first), f64::from(pool.size)));
        self.gauge("aizen_dhcp_pool_addresses", "Addresses of a pool.", sizes);
        let leased = dhcp
            .pools
            .iter()
            .map(|pool| (of(&pool.server, pool.first), f64::from(pool.leased)));
        self.gauge(
            "aizen_dhcp_pool_leased",
            "Addresses of it that are leased.",
            leased,
        );
    }

    pub(super) fn dhcp_probes(&mut self, probes: &[DhcpProbe]) {
        self.answers(
            "aizen_dhcp_offers",
            "DHCP servers that offered an address on a link.",
            probes.iter().map(|probe| (probe.link, probe.offers.len())),
        );
    }

    pub(super) fn pppoe_probes(&mut self, probes: &[PppoeProbe]) {
        self.answers(
            "aizen_pppoe_concentrators",
            "Concentrators that answered PPPoE discovery on a link (RFC 2516).",
            probes
                .iter()
                .map(|probe| (probe.link, probe.concentrators.len())),
        );
    }

    pub(super) fn router_probes(&mut self, probes: &[RouterProbe]) {
        self.answers(
            "aizen_router_advertisements",
            "IPv6 routers that advertised themselves on a link (RFC 4861).",
            probes
                .iter()
                .map(|probe| (probe.link, probe.advertisements.len())),
        );
    }

    pub(super) fn lldp(&mut self, ends: &[Lldp]) {
        let links = count(ends.iter().map(|end| end.link));
        let samples: Vec<_> = links
            .into_iter()
            .map(|(link, ends)| (self.link(link), ends))
            .collect();
        self.gauge(
            "aizen_lldp_neighbours",
            "Other ends of a cable that name themselves (IEEE 802.1AB).",
            samples,
        );
    }

    fn answers(
        &mut self,
        name: &'static str,
        help: &'static str,
        counts: impl Iterator<Item = (u32, usize)>,
    ) {
        let samples: Vec<_> = counts
            .map(|(link, count)| {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                (self.link(link), f64::from(count))
            })
            .collect();
        self.gauge(name, help, samples);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
pub(super) fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_second() as f64
}
