//! Entries of [`crate::fuzz`]: what only a privileged process is told.

use std::net::Ipv6Addr;
use std::time::Duration;

use aizen_protocol::private::Mac;
use jiff::Timestamp;

use super::attribute::{self, Attributes};
use super::filter::{Object, Ruleset};
use super::modules::{Page, qsfp, sfp as small};
use super::{
    dhcp_probe, kernel_log as log, lldp as discovery, pppoe_probe, router_probe,
    wireguard as tunnels,
};
use crate::collect::netlink::parts;
use crate::fuzz::survives;

/// nf_tables: a datagram of tables, chains and rules.
pub fn filter(bytes: &[u8]) {
    let mut ruleset = Ruleset::default();
    for part in parts(bytes) {
        let Some(object) = Object::of(part.payload) else {
            continue;
        };
        // `NFT_MSG_NEWTABLE`, `NFT_MSG_NEWCHAIN`, `NFT_MSG_NEWRULE`.
        match part.header.message_type & 0xff {
            0 => ruleset.take_table(&object),
            3 => ruleset.take_chain(&object),
            _ => ruleset.take_rule(&object),
        }
    }
    survives(&ruleset.seen().body);
    attribute::text(bytes);
}

/// WireGuard: a datagram of messages about one interface.
pub fn wireguard(bytes: &[u8]) {
    let mut device = tunnels::Device::new(1);
    for part in parts(bytes) {
        device.take(
            Attributes(part.payload.get(4..).unwrap_or_default()),
            1_795_000_000,
        );
    }
    device.take(Attributes(bytes), 0);
    survives(&device.end("wg0", &mut Vec::new()));
}

/// The memory of SFP and QSFP modules.
pub fn sfp(bytes: &[u8]) {
    let mut pages = bytes.chunks(size_of::<Page>()).map(|chunk| {
        let mut page: Page = [0; size_of::<Page>()];
        page[..chunk.len()].copy_from_slice(chunk);
        page
    });
    let (Some(lower), second, third) = (pages.next(), pages.next(), pages.next()) else {
        return;
    };
    small::is_watched(&lower);
    survives(&small::decode(&lower, second.as_ref()));
    if let Some(upper) = second {
        qsfp::has_pages(&lower);
        survives(&qsfp::decode(&lower, &upper, third.as_ref()));
    }
}

/// `/dev/kmsg`: messages, each up to an empty line.
pub fn kernel_log(bytes: &[u8]) {
    for since_start in [Duration::from_secs(1000), Duration::MAX] {
        let mut lines = log::Lines::new(Timestamp::UNIX_EPOCH, since_start);
        for message in bytes.split(|byte| *byte == 0) {
            lines.take(message);
        }
        survives(&lines.seen().body);
    }
}

/// LLDP.
pub fn lldp(bytes: &[u8]) {
    discovery::decode(bytes, 1);
}

/// DHCP offers.
pub fn dhcp_offer(bytes: &[u8]) {
    // Ours is what says so: else nothing would pass.
    let xid = bytes.get(46..50).and_then(|x| x.first_chunk());
    let mac = bytes.get(70..76).and_then(|m| m.first_chunk());
    let (xid, mac) = (
        xid.copied().unwrap_or_default(),
        mac.copied().unwrap_or_default(),
    );
    if let Some(offer) = dhcp_probe::offer(bytes, Mac(mac), xid) {
        survives(&offer);
    }
}

/// PPPoE offers.
pub fn pppoe(bytes: &[u8]) {
    pppoe_probe::offer(bytes, *b"aizenfuz");
}

/// Router advertisements.
pub fn router_advertisement(bytes: &[u8]) {
    if let Some(told) = router_probe::advertisement(bytes) {
        survives(&told);
    }
    if let Some(told) = sealed(bytes).and_then(|frame| router_probe::advertisement(&frame)) {
        survives(&told);
    }
}

/// The frame with its checksum set right: no fuzzer guesses it.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = bytes.to_vec();
    let length = usize::from(u16::from_be_bytes(*frame.get(18..)?.first_chunk()?));
    let from = Ipv6Addr::from(*frame.get(22..)?.first_chunk::<16>()?);
    let to = Ipv6Addr::from(*frame.get(38..)?.first_chunk::<16>()?);
    let message = frame.get_mut(54..54 + length)?;
    message.get_mut(2..4)?.fill(0);
    let sum = router_probe::icmp_checksum(from, to, message).to_be_bytes();
    message.get_mut(2..4)?.copy_from_slice(&sum);
    Some(frame)
}
