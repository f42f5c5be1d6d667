use proptest::prelude::*;

use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const XID: [u8; 4] = [1, 2, 3, 4];

/// A server's answer with the given options.
fn answer(address: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut bytes = discover(MAC, XID);
    bytes[6..12].copy_from_slice(&SERVER_MAC.0);
    let message = 14 + 20 + UDP;
    bytes[message - 8..message - 4].copy_from_slice(&[0, 67, 0, 68]);
    bytes[message] = BOOTREPLY;
    bytes[message + 16..message + 20].copy_from_slice(&address);
    bytes[message + FIXED..].fill(0);
    bytes[message + FIXED..][..options.len()].copy_from_slice(options);
    bytes
}

const OFFERED: &[u8] = &[
    53, 1, OFFER, 54, 4, 192, 0, 2, 1, 3, 4, 192, 0, 2, 254, 6, 8, 192, 0, 2, 53, 192, 0, 2, 54,
    255,
];

#[test]
fn an_offer_is_read_with_what_it_would_give() {
    let told = offer(&answer([192, 0, 2, 99], OFFERED), MAC, XID).unwrap();
    assert_eq!(told.server, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(told.server_mac, Some(SERVER_MAC));
    assert_eq!(told.address, Some(IpAddr::from([192, 0, 2, 99])));
    assert_eq!(told.routers, [IpAddr::from([192, 0, 2, 254])]);
    assert_eq!(told.resolvers.len(), 2);
}

#[test]
fn a_refusal_offers_no_address() {
    let refusal = [53, 1, NAK, 54, 4, 192, 0, 2, 1, 255];
    assert_eq!(
        offer(&answer([0; 4], &refusal), MAC, XID).unwrap().address,
        None
    );
}

#[test]
fn what_is_not_for_us_or_not_right_is_no_offer() {
    let whole = answer([192, 0, 2, 99], OFFERED);
    assert_eq!(offer(&whole, MAC, [9; 4]), None);
    assert_eq!(offer(&whole, SERVER_MAC, XID), None);
    // Our own question, heard again.
    assert_eq!(offer(&discover(MAC, XID), MAC, XID), None);
    for options in [
        &[53, 1, 5, 54, 4, 192, 0, 2, 1, 255][..],
        &[53, 1, OFFER, 255],
        &[53, 2, OFFER, 0, 54, 4, 192, 0, 2, 1, 255],
        &[53, 1, OFFER, 54, 4, 192, 0, 2, 1, 3, 5, 1, 2, 3, 4, 5, 255],
        &[53, 1, OFFER, 54, 4, 192, 0, 2, 1, 3, 0, 255],
    ] {
        assert_eq!(
            offer(&answer([192, 0, 2, 99], options), MAC, XID),
            None,
            "{options:?}"
        );
    }
    assert_eq!(Options::of(&[53, 200, 1]), None);
}

#[test]
fn a_question_has_a_header_that_checks_out_and_asks_for_nothing_to_be_leased() {
    let question = discover(MAC, XID);
    assert_eq!(checksum(&[&question[14..34]]), 0);
    let options = Options::of(&question[14 + 20 + UDP + FIXED..]).unwrap();
    assert_eq!(options.message_type, Some(DISCOVER));
}

proptest! {
    #[test]
    fn any_frame_is_judged_without_panic(frame in prop::collection::vec(any::<u8>(), 0..700)) {
        prop_assert_eq!(offer(&frame, MAC, XID), None);
    }

    #[test]
    fn any_options_of_an_answer_are_judged_without_panic(options in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(told) = offer(&answer([192, 0, 2, 99], &options), MAC, XID) {
            prop_assert!(told.routers.len() <= 60);
        }
    }

    #[test]
    fn a_truncated_offer_is_none(cut in 0_usize..300) {
        prop_assert_eq!(offer(&answer([192, 0, 2, 99], OFFERED)[..cut], MAC, XID), None);
    }
}
