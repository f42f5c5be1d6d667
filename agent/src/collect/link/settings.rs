//! What `net.ipv4.conf.LINK` and `net.ipv6.conf.LINK` say, without reading a file a setting (`IFLA_AF_SPEC`).

use aizen_protocol::record::{Ipv4Settings, Ipv6Settings};

use crate::collect::netlink::attribute::{Attribute, find, u32_at};

/// The settings of both families; none for a family that the link or the kernel doesn't have.
pub(super) fn decode(spec: Attribute<'_>) -> (Option<Ipv4Settings>, Option<Ipv6Settings>) {
    let ipv4 = find(spec.value, AF_INET).and_then(|inet| find(inet.value, IFLA_INET_CONF));
    let ipv6 = find(spec.value, AF_INET6).and_then(ipv6);
    (ipv4.and_then(self::ipv4), ipv6)
}

/// An array of `IPV4_DEVCONF_*` (linux/ip.h), which count from 1.
fn ipv4(conf: Attribute<'_>) -> Option<Ipv4Settings> {
    let at = |number: usize| u32_at(conf.value, (number - 1) * 4);
    Some(Ipv4Settings {
        forwarding: at(1)? != 0,
        rp_filter: small(at(8)?),
        arp_ignore: small(at(19)?),
    })
}

/// An array of `DEVCONF_*` (linux/ipv6.h), which count from 0, and flags (net/if_inet6.h).
fn ipv6(inet6: Attribute<'_>) -> Option<Ipv6Settings> {
    let conf = find(inet6.value, IFLA_INET6_CONF)?;
    let at = |number: usize| u32_at(conf.value, number * 4);
    let flags = find(inet6.value, IFLA_INET6_FLAGS)?.u32()?;
    Some(Ipv6Settings {
        disabled: at(26)? != 0,
        forwarding: at(0)? != 0,
        accept_ra: small(at(3)?),
        ra_received: flags & IF_RA_RCVD != 0,
        rs_sent: flags & IF_RS_SENT != 0,
    })
}

fn small(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_FLAGS: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const IF_RS_SENT: u32 = 0x10;
const IF_RA_RCVD: u32 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::netlink::attribute::put;

    #[test]
    fn an_array_of_an_older_kernel_that_ends_early_tells_nothing() {
        let mut conf = Vec::new();
        put(&mut conf, IFLA_INET_CONF, &[0; 18 * 4]);
        let mut spec = Vec::new();
        put(&mut spec, AF_INET, &conf);
        let told = decode(Attribute {
            kind: 26,
            value: &spec,
        });
        assert_eq!(told, (None, None));
    }

    #[test]
    fn flags_say_whether_a_router_was_asked_and_heard() {
        let (mut inner, mut spec) = (Vec::new(), Vec::new());
        put(&mut inner, IFLA_INET6_FLAGS, &0x8000_0030_u32.to_ne_bytes());
        let mut conf = vec![0; 27 * 4];
        conf[12] = 2;
        put(&mut inner, IFLA_INET6_CONF, &conf);
        put(&mut spec, AF_INET6, &inner);
        let told = decode(Attribute {
            kind: 26,
            value: &spec,
        });
        let expected = Ipv6Settings {
            accept_ra: if cfg!(target_endian = "little") {
                2
            } else {
                u8::MAX
            },
            ra_received: true,
            rs_sent: true,
            ..Ipv6Settings::default()
        };
        assert_eq!(told, (None, Some(expected)));
    }
}
