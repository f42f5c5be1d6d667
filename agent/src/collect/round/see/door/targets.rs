//! Which links are asked about: nobody else's network is disturbed without need.

use std::net::IpAddr;

use aizen_protocol::record::{Address, Link, Role};

/// What the choice depends on.
pub(super) struct Ground<'a> {
    pub(super) links: &'a [Link],
    pub(super) addresses: &'a [Address],
    pub(super) role: Role,
    pub(super) wan: &'a [String],
    /// A DHCP server runs on this device.
    pub(super) serves_dhcp: bool,
}

impl<'a> Ground<'a> {
    pub(super) fn has_wireguard(&self) -> bool {
        self.links
            .iter()
            .any(|link| link.driver_kind.as_deref() == Some("wireguard"))
    }

    pub(super) fn has_hardware(&self) -> bool {
        self.links.iter().any(is_hardware)
    }

    /// Where a server should answer: towards the provider, and where no IPv4 address is. Where this device serves others:
    /// nobody else should answer there.
    pub(super) fn dhcp(&self) -> Vec<&'a Link> {
        self.choose(|link| {
            link.master.is_none()
                && (self.is_wan(link)
                    || !self.has_ipv4(link)
                    || (self.role == Role::Router
                        && self.serves_dhcp
                        && self.has_private_ipv4(link)))
        })
    }

    /// Links towards the provider that have no address of their own.
    pub(super) fn pppoe(&self) -> Vec<&'a Link> {
        self.choose(|link| self.is_wan(link) && !self.has_ipv4(link) && !self.has_global_ipv6(link))
    }

    /// Links that speak IPv6.
    pub(super) fn routers(&self) -> Vec<&'a Link> {
        self.choose(|link| {
            let enabled = link.ipv6.as_ref().is_none_or(|settings| !settings.disabled);
            link.master.is_none() && enabled && self.has_link_local_ipv6(link)
        })
    }

    /// Ends of cables: a port keeps its neighbour when it belongs to a bridge.
    pub(super) fn lldp(&self) -> Vec<&'a Link> {
        self.choose(|link| is_hardware(link) || link.driver_kind.as_deref() == Some("veth"))
    }

    /// Ethernet links with a carrier, the provider's first, at most [`LINKS`].
    fn choose(&self, wanted: impl Fn(&Link) -> bool) -> Vec<&'a Link> {
        let mut chosen: Vec<_> = self
            .links
            .iter()
            .filter(|link| speaks_ethernet(link) && wanted(link))
            .collect();
        chosen.sort_by_key(|link| (!self.is_wan(link), link.index));
        chosen.truncate(LINKS);
        chosen
    }

    fn is_wan(&self, link: &Link) -> bool {
        self.wan.contains(&link.name)
    }

    fn of(&self, link: &Link) -> impl Iterator<Item = IpAddr> {
        let index = link.index;
        let own = self
            .addresses
            .iter()
            .filter(move |address| address.link == index);
        own.map(|address| address.address.address)
    }

    /// An address that somebody gave: one of 169.254.0.0/16 is what a client without a lease takes (RFC 3927).
    fn has_ipv4(&self, link: &Link) -> bool {
        self.of(link)
            .any(|a| matches!(a, IpAddr::V4(v4) if !v4.is_link_local()))
    }

    fn has_private_ipv4(&self, link: &Link) -> bool {
        self.of(link)
            .any(|a| matches!(a, IpAddr::V4(v4) if v4.is_private()))
    }

    fn has_global_ipv6(&self, link: &Link) -> bool {
        self.of(link)
            .any(|a| matches!(a, IpAddr::V6(v6) if !v6.is_unicast_link_local()))
    }

    fn has_link_local_ipv6(&self, link: &Link) -> bool {
        self.of(link)
            .any(|a| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local()))
    }
}

fn speaks_ethernet(link: &Link) -> bool {
    let tunnel = matches!(
        link.driver_kind.as_deref(),
        Some("wireguard" | "tun" | "ifb" | "dummy")
    );
    link.admin_up && !link.loopback && link.carrier == Some(true) && link.mac.is_some() && !tunnel
}

fn is_hardware(link: &Link) -> bool {
    link.driver_kind.is_none() && !link.loopback && link.mac.is_some()
}

/// True if a socket of `/proc/net/udp` has this local port: `sl: ADDRESS:PORT …`, in hexadecimal digits.
pub(super) fn listens_on(sockets: &str, port: u16) -> bool {
    sockets.lines().skip(1).any(|line| {
        let local = line.split_whitespace().nth(1);
        let digits = local.and_then(|local| local.rsplit_once(':'));
        digits.is_some_and(|(_, digits)| u16::from_str_radix(digits, 16) == Ok(port))
    })
}

/// Links that one kind of question is asked about in one round.
const LINKS: usize = 4;

#[cfg(test)]
mod tests {
    use aizen_protocol::private::Mac;

    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            admin_up: true,
            carrier: Some(true),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            ..Link::default()
        }
    }

    fn address(link: u32, prefix: &str) -> Address {
        Address {
            link,
            address: prefix.parse().unwrap(),
            scope: "global".to_owned(),
            dad_failed: false,
            tentative: false,
            deprecated: false,
            dynamic: false,
            valid_s: None,
            preferred_s: None,
        }
    }

    fn names(links: &[&Link]) -> Vec<String> {
        links.iter().map(|link| link.name.clone()).collect()
    }

    fn router<'a>(links: &'a [Link], addresses: &'a [Address], wan: &'a [String]) -> Ground<'a> {
        Ground {
            links,
            addresses,
            role: Role::Router,
            wan,
            serves_dhcp: true,
        }
    }

    #[test]
    fn dhcp_is_asked_towards_the_provider_where_no_address_is_and_where_a_rogue_would_be() {
        let links = [
            link(2, "lan"),
            link(3, "wan"),
            link(4, "bare"),
            link(5, "dmz"),
            link(6, "fallen"),
        ];
        let addresses = [
            address(2, "192.168.1.1/24"),
            address(3, "198.51.100.2/24"),
            address(5, "203.0.113.1/24"),
            address(6, "169.254.7.7/16"),
        ];
        let wan = ["wan".to_owned()];
        let mut ground = router(&links, &addresses, &wan);
        assert_eq!(names(&ground.dhcp()), ["wan", "lan", "bare", "fallen"]);
        ground.serves_dhcp = false;
        assert_eq!(names(&ground.dhcp()), ["wan", "bare", "fallen"]);
        (ground.serves_dhcp, ground.role) = (true, Role::Host);
        assert_eq!(names(&ground.dhcp()), ["wan", "bare", "fallen"]);
    }

    #[test]
    fn pppoe_is_asked_only_towards_the_provider_and_only_without_an_address() {
        let links = [
            link(2, "lan"),
            link(3, "wan"),
            link(4, "wan2"),
            link(5, "wan3"),
        ];
        let addresses = [
            address(3, "fe80::1/64"),
            address(4, "198.51.100.2/24"),
            address(5, "2001:db8::2/64"),
        ];
        let wan = ["wan", "wan2", "wan3"].map(str::to_owned);
        assert_eq!(names(&router(&links, &addresses, &wan).pppoe()), ["wan"]);
    }

    #[test]
    fn nothing_is_asked_on_loopback_without_carrier_or_where_no_frame_goes() {
        let mut links = [
            link(1, "lo"),
            link(2, "out"),
            link(3, "down"),
            link(4, "tun0"),
            link(5, "wg0"),
        ];
        links[0].loopback = true;
        links[1].carrier = Some(false);
        links[2].admin_up = false;
        links[3].mac = None;
        links[4].driver_kind = Some("wireguard".to_owned());
        let wan = links.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
        let addresses: Vec<_> = (1..6).map(|index| address(index, "fe80::1/64")).collect();
        let ground = router(&links, &addresses, &wan);
        for chosen in [
            ground.dhcp(),
            ground.pppoe(),
            ground.routers(),
            ground.lldp(),
        ] {
            assert_eq!(names(&chosen), Vec::<String>::new());
        }
    }

    #[test]
    fn routers_are_sought_where_ipv6_is() {
        let links = [link(2, "six"), link(3, "four"), link(4, "off")];
        let mut links = links;
        links[2].ipv6 = Some(aizen_protocol::record::Ipv6Settings {
            disabled: true,
            forwarding: false,
            accept_ra: 1,
            ra_received: false,
            rs_sent: false,
        });
        let addresses = [
            address(2, "fe80::2/64"),
            address(3, "192.0.2.1/24"),
            address(4, "fe80::4/64"),
        ];
        assert_eq!(names(&router(&links, &addresses, &[]).routers()), ["six"]);
    }

    #[test]
    fn a_port_of_a_bridge_has_a_neighbour_and_the_bridge_asks_for_dhcp() {
        let mut links = [link(2, "port"), link(3, "br0")];
        links[0].master = Some(3);
        links[1].driver_kind = Some("bridge".to_owned());
        let ground = router(&links, &[], &[]);
        assert_eq!(names(&ground.lldp()), ["port"]);
        assert_eq!(names(&ground.dhcp()), ["br0"]);
    }

    #[test]
    fn a_device_with_many_links_asks_about_a_few_and_the_providers_first() {
        let links: Vec<_> = (2..40).map(|n| link(n, &format!("e{n}"))).collect();
        let wan = ["e39".to_owned()];
        assert_eq!(
            names(&router(&links, &[], &wan).dhcp()),
            ["e39", "e2", "e3", "e4"]
        );
    }

    #[test]
    fn a_dhcp_server_is_known_by_its_port() {
        let sockets =
            "  sl  local_address rem_address   st\n  12: 00000000:0043 00000000:0000 07\n";
        assert!(listens_on(sockets, 67));
        assert!(!listens_on(sockets, 68));
        assert!(!listens_on("", 67));
    }
}
