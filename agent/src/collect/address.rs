//! Interface addresses.

use std::net::IpAddr;

use aizen_protocol::record::Address;

use super::netlink::attribute::{attributes, prefix, u32_at};
use super::netlink::{self, Question};
use super::{CollectError, Seen};

/// All IPv4 and IPv6 addresses of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Address>>, CollectError> {
    let question = Question::route(RTM_GETADDR, vec![0; HEADER]);
    let dump = netlink::dump_parts(
        &question,
        |part| decode(part.payload),
        |address: &Address| address.dad_failed,
    )
    .await?;
    Ok(dump.seen("addresses"))
}

/// Reads one `RTM_NEWADDR`: `struct ifaddrmsg` and attributes. None if it can't be right; no address for a message
/// without one.
pub(crate) fn decode(message: &[u8]) -> Option<Option<Address>> {
    let &[_, length, flags, scope] = message.first_chunk()?;
    let (mut local, mut other): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let mut flags = u32::from(flags);
    let (mut valid_s, mut preferred_s) = (None, None);
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            IFA_LOCAL => local = attribute.ip(),
            IFA_ADDRESS => other = attribute.ip(),
            IFA_FLAGS => flags = attribute.u32()?,
            // `struct ifa_cacheinfo`: preferred, valid.
            IFA_CACHEINFO => {
                let ends = |place| u32_at(attribute.value, place).filter(|&s| s != u32::MAX);
                (preferred_s, valid_s) = (ends(0), ends(4));
            }
            _ => {}
        }
    }
    // On a point-to-point link `IFA_ADDRESS` is the peer's.
    let Some(address) = local.or(other) else {
        return Some(None);
    };
    Some(Some(Address {
        link: u32_at(message, 4)?,
        address: prefix(address, length)?,
        scope: self::scope(scope),
        dad_failed: flags & IFA_F_DADFAILED != 0,
        tentative: flags & IFA_F_TENTATIVE != 0,
        deprecated: flags & IFA_F_DEPRECATED != 0,
        dynamic: flags & IFA_F_PERMANENT == 0,
        valid_s,
        preferred_s,
    }))
}

/// `RT_SCOPE_*` (linux/rtnetlink.h) by the names of rt_scopes.
fn scope(scope: u8) -> String {
    let name = match scope {
        0 => "global",
        200 => "site",
        253 => "link",
        254 => "host",
        255 => "nowhere",
        other => return other.to_string(),
    };
    name.to_owned()
}

const RTM_GETADDR: u16 = 22;
/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    fn message(length: u8, flags: u32, given: &[(u16, &[u8])]) -> Vec<u8> {
        let short = u8::try_from(flags & 0xff).unwrap();
        let mut bytes = vec![2, length, short, 0, 7, 0, 0, 0];
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    fn told(message: &[u8]) -> Address {
        decode(message).unwrap().unwrap()
    }

    #[test]
    fn an_address_with_an_impossible_prefix_is_refused() {
        let given: [(u16, &[u8]); 1] = [(IFA_LOCAL, &[192, 0, 2, 2])];
        assert!(decode(&message(32, 0, &given)).is_some());
        assert_eq!(decode(&message(33, 0, &given)), None);
    }

    #[test]
    fn the_local_address_of_a_point_to_point_link_is_ours_not_the_peer() {
        let given: [(u16, &[u8]); 2] =
            [(IFA_ADDRESS, &[192, 0, 2, 1]), (IFA_LOCAL, &[192, 0, 2, 2])];
        let address = told(&message(32, 0, &given));
        assert_eq!(address.address.to_string(), "192.0.2.2/32");
    }

    #[test]
    fn the_long_flags_win_over_the_short_ones() {
        let long = (IFA_F_DADFAILED | IFA_F_TENTATIVE).to_ne_bytes();
        let ours = "fe80::1".parse::<Ipv6Addr>().unwrap().octets();
        let given: [(u16, &[u8]); 2] = [(IFA_ADDRESS, &ours), (IFA_FLAGS, &long)];
        let address = told(&message(64, IFA_F_PERMANENT, &given));
        assert!(address.dad_failed && address.tentative && address.dynamic);
    }

    #[test]
    fn a_lease_counts_down_twice_and_for_ever_is_none() {
        let lives: Vec<u8> = [30, u32::MAX, 0, 0]
            .iter()
            .flat_map(|s| s.to_ne_bytes())
            .collect();
        let ours = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let given: [(u16, &[u8]); 2] = [(IFA_ADDRESS, &ours), (IFA_CACHEINFO, &lives)];
        let address = told(&message(64, 0, &given));
        assert_eq!((address.valid_s, address.preferred_s), (None, Some(30)));
    }

    #[test]
    fn an_address_message_without_an_address_is_passed_over() {
        assert_eq!(decode(&message(0, 0, &[])), Some(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_address_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }
    }
}
