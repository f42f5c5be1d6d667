//! Interface addresses.

use std::net::IpAddr;

use aizen_protocol::record::Address;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::netlink::attribute::prefix;
use super::{CollectError, Seen, netlink};

/// All IPv4 and IPv6 addresses of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Address>>, CollectError> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let dump = netlink::dump(
        question,
        |message| match message {
            RouteNetlinkMessage::NewAddress(address) => decode(&address).into_iter().collect(),
            _ => Vec::new(),
        },
        |address| address.dad_failed,
    )
    .await?;
    Ok(dump.seen("addresses"))
}

pub(crate) fn decode(message: &AddressMessage) -> Option<Address> {
    let mut local: Option<IpAddr> = None;
    let mut other: Option<IpAddr> = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut valid_s, mut preferred_s) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::CacheInfo(lives) => {
                let ends = |seconds| Some(seconds).filter(|&s| s != u32::MAX);
                valid_s = ends(lives.ifa_valid);
                preferred_s = ends(lives.ifa_preferred);
            }
            _ => {}
        }
    }
    Some(Address {
        link: message.header.index,
        // On a point-to-point link `IFA_ADDRESS` is the peer's.
        address: prefix(local.or(other)?, message.header.prefix_len)?,
        scope: scope(message.header.scope),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        tentative: flags.contains(AddressFlags::Tentative),
        deprecated: flags.contains(AddressFlags::Deprecated),
        dynamic: !flags.contains(AddressFlags::Permanent),
        valid_s,
        preferred_s,
    })
}

fn scope(scope: AddressScope) -> String {
    match scope {
        AddressScope::Universe => "global".to_owned(),
        AddressScope::Site => "site".to_owned(),
        AddressScope::Link => "link".to_owned(),
        AddressScope::Host => "host".to_owned(),
        AddressScope::Nowhere => "nowhere".to_owned(),
        other => u8::from(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::{AddressHeaderFlags, CacheInfo};

    use super::*;

    #[test]
    fn an_address_with_an_impossible_prefix_is_none() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 32;
        message.attributes = vec![AddressAttribute::Local("192.0.2.2".parse().unwrap())];
        assert!(decode(&message).is_some());
        message.header.prefix_len = 33;
        assert_eq!(decode(&message), None);
    }

    #[test]
    fn the_local_address_of_a_point_to_point_link_is_ours_not_the_peer() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 32;
        message.attributes = vec![
            AddressAttribute::Address("192.0.2.1".parse().unwrap()),
            AddressAttribute::Local("192.0.2.2".parse().unwrap()),
        ];
        assert_eq!(
            decode(&message).unwrap().address.to_string(),
            "192.0.2.2/32"
        );
    }

    #[test]
    fn the_long_flags_win_over_the_short_ones() {
        let mut message = AddressMessage::default();
        message.header.flags = AddressHeaderFlags::Permanent;
        message.attributes = vec![
            AddressAttribute::Address("fe80::1".parse().unwrap()),
            AddressAttribute::Flags(AddressFlags::Dadfailed | AddressFlags::Tentative),
        ];
        let address = decode(&message).unwrap();
        assert!(address.dad_failed && address.tentative && address.dynamic);
    }

    #[test]
    fn a_lease_counts_down_twice_and_for_ever_is_none() {
        let mut lives = CacheInfo::default();
        (lives.ifa_valid, lives.ifa_preferred) = (u32::MAX, 30);
        let mut message = AddressMessage::default();
        message.attributes = vec![
            AddressAttribute::Address("2001:db8::1".parse().unwrap()),
            AddressAttribute::CacheInfo(lives),
        ];
        let address = decode(&message).unwrap();
        assert_eq!((address.valid_s, address.preferred_s), (None, Some(30)));
    }

    #[test]
    fn an_address_message_without_an_address_is_passed_over() {
        assert_eq!(decode(&AddressMessage::default()), None);
    }
}
