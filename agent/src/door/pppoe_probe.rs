//! Who answers PPPoE discovery on a link: one PADI, and every PADO to it (RFC 2516).
//!
//! No PADR follows, so no session begins.

use std::time::Duration;

use aizen_protocol::private::{Mac, Text};
use aizen_protocol::record::{Body, PppoeProbe};
use tokio::time::{Instant, timeout_at};

use super::attribute::text;
use super::wire::{BROADCAST, LONGEST, Port, frame, nonce, payload};
use super::{DoorError, Seen};

/// Asks on `dev`, and listens.
pub(super) async fn see(dev: &str) -> Result<Seen, DoorError> {
    let port = Port::of(dev)?;
    let until = Instant::now() + LISTENS;
    let wire = port.open(ETHERTYPE_DISCOVERY, &[], &[])?;
    let host = nonce()?;
    wire.send(&initiation(port.mac, host))?;
    let mut probe = PppoeProbe {
        link: port.index,
        concentrators: Vec::new(),
        names: Vec::new(),
    };
    let mut buffer = [0; LONGEST];
    while let Ok(heard) = timeout_at(until, wire.hear(&mut buffer)).await {
        if let Some((mac, name)) = offer(heard?, host)
            && !probe.concentrators.contains(&mac)
            && probe.concentrators.len() < CONCENTRATORS
        {
            probe.concentrators.push(mac);
            probe.names.push(Text(name));
        }
    }
    Ok(Seen {
        body: Body::PppoeProbes(vec![probe]),
        gaps: Vec::new(),
    })
}

/// A PADI for any service, with a number that comes back in every answer to it.
fn initiation(mac: Mac, host: [u8; 8]) -> Vec<u8> {
    let mut tags = Vec::new();
    for (tag, value) in [(SERVICE_NAME, &[][..]), (HOST_UNIQ, &host[..])] {
        tags.extend(tag.to_be_bytes());
        tags.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
        tags.extend(value);
    }
    let mut message = vec![VERSION_AND_TYPE, PADI, 0, 0];
    message.extend(u16::try_from(tags.len()).unwrap_or_default().to_be_bytes());
    message.extend(tags);
    frame(BROADCAST, mac, ETHERTYPE_DISCOVERY, &message)
}

/// Address and name of the concentrator of a PADO to our PADI.
pub(crate) fn offer(bytes: &[u8], host: [u8; 8]) -> Option<(Mac, String)> {
    let (mac, message) = payload(bytes, ETHERTYPE_DISCOVERY)?;
    let (&[VERSION_AND_TYPE, PADO, 0, 0, l0, l1], rest) = message.split_first_chunk::<6>()? else {
        return None;
    };
    let mut tags = rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
    let (mut name, mut ours) = (None, false);
    while let Some((&[t0, t1, l0, l1], after)) = tags.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let (value, after) = after.split_at_checked(length)?;
        match u16::from_be_bytes([t0, t1]) {
            END_OF_LIST => break,
            AC_NAME => name = Some(text(value)),
            HOST_UNIQ => ours = value == host,
            // A concentrator that refuses the service or fails offers nothing.
            SERVICE_NAME_ERROR | AC_SYSTEM_ERROR | GENERIC_ERROR => return None,
            _ => {}
        }
        tags = after;
    }
    // RFC 2516, 5.2: a PADO must name the concentrator, and give the number back unchanged.
    name.filter(|_| ours).map(|name| (mac, name))
}

pub(super) const LISTENS: Duration = Duration::from_secs(2);
const CONCENTRATORS: usize = 16;
const ETHERTYPE_DISCOVERY: u16 = 0x8863;
const VERSION_AND_TYPE: u8 = 0x11;
const PADI: u8 = 0x09;
const PADO: u8 = 0x07;
const END_OF_LIST: u16 = 0x0000;
const SERVICE_NAME: u16 = 0x0101;
const AC_NAME: u16 = 0x0102;
const HOST_UNIQ: u16 = 0x0103;
const SERVICE_NAME_ERROR: u16 = 0x0201;
const AC_SYSTEM_ERROR: u16 = 0x0202;
const GENERIC_ERROR: u16 = 0x0203;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const HOST: [u8; 8] = *b"12345678";

    fn tag(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    }

    fn answer(tags: &[Vec<u8>]) -> Vec<u8> {
        let tags = tags.concat();
        let mut message = vec![VERSION_AND_TYPE, PADO, 0, 0];
        message.extend(u16::try_from(tags.len()).unwrap().to_be_bytes());
        message.extend(tags);
        frame(BROADCAST, MAC, ETHERTYPE_DISCOVERY, &message)
    }

    #[test]
    fn a_concentrator_is_known_by_address_and_name() {
        let whole = answer(&[
            tag(SERVICE_NAME, b""),
            tag(AC_NAME, b"bras-7"),
            tag(HOST_UNIQ, &HOST),
        ]);
        assert_eq!(offer(&whole, HOST), Some((MAC, "bras-7".to_owned())));
        assert_eq!(offer(&whole, *b"87654321"), None);
    }

    #[test]
    fn an_answer_without_a_name_or_with_an_error_offers_nothing() {
        assert_eq!(offer(&answer(&[tag(HOST_UNIQ, &HOST)]), HOST), None);
        let failed = [
            tag(AC_NAME, b"x"),
            tag(HOST_UNIQ, &HOST),
            tag(AC_SYSTEM_ERROR, b"full"),
        ];
        assert_eq!(offer(&answer(&failed), HOST), None);
        // Our own question, heard again.
        assert_eq!(offer(&initiation(MAC, HOST), HOST), None);
    }

    #[test]
    fn a_tag_beyond_the_end_makes_the_answer_worthless() {
        let mut whole = answer(&[tag(HOST_UNIQ, &HOST), tag(AC_NAME, b"x")]);
        whole[14 + 6 + 12 + 3] = 200;
        assert_eq!(offer(&whole, HOST), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_judged_without_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            offer(&body, HOST);
            offer(&frame(MAC, MAC, ETHERTYPE_DISCOVERY, &[&[VERSION_AND_TYPE, PADO, 0, 0], &body[..]].concat()), HOST);
        }
    }
}
