//! The way back: each object's own bytes, with the number that makes or removes it.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};

use super::decode::{BRIDGE, FLAGS, KIND, LINK_INFO, NDA_LLADDR};
use super::*;
use crate::collect::netlink::tell_with;

/// `RTM_SETLINK`, `RTM_DELLINK`: VLANs of bridges are set as a link's.
const SET_LINK: u16 = 19;
const DELETE_LINK: u16 = 17;
/// `IFLA_AF_SPEC` with `IFLA_BRIDGE_FLAGS` and `IFLA_BRIDGE_VLAN_INFO`; `BRIDGE_FLAGS_SELF`.
const AF_SPEC: u16 = 26;
const BRIDGE_FLAGS: u16 = 0;
const BRIDGE_VLAN_INFO: u16 = 2;
const SELF: u16 = 2;
/// `IFLA_IFALIAS`.
const ALIAS: u16 = 20;
/// `NHA_ID`.
const NEXT_HOP_ID: u16 = 1;

/// Makes an object what it was. `is_bridge` tells whether an index is a bridge's own, whose VLANs are set in another way.
pub(crate) async fn restore(
    kind: Kind,
    before: Option<&BeyondState>,
    now: Option<&BeyondState>,
    is_bridge: &impl Fn(u32) -> bool,
) -> Result<(), NetlinkError> {
    match kind {
        Kind::Link => match (before, now) {
            (Some(before), Some(now)) => set_link(before, now).await,
            // It came or went with its link.
            (None, _) | (_, None) => Ok(()),
        },
        Kind::Vlan => {
            if let Some(now) = now {
                tell_with(&vlan(DELETE_LINK, now, is_bridge), 0).await?;
            }
            match before {
                Some(before) => tell_with(&vlan(SET_LINK, before, is_bridge), 0).await,
                None => Ok(()),
            }
        }
        Kind::Fdb | Kind::Queue | Kind::QueueClass | Kind::Filter | Kind::NextHop | Kind::Label => {
            // Disciplines and filters of another kind are not turned into each other.
            let same =
                |a: &BeyondState, b: &BeyondState| a.header == b.header && word(a) == word(b);
            if let Some(now) = now
                && !before.is_some_and(|before| same(before, now))
            {
                tell_with(&remove(kind, now), 0).await?;
            }
            match before {
                Some(before) => {
                    tell_with(&make(kind, before), NLM_F_CREATE | replace(kind, before)).await
                }
                None => Ok(()),
            }
        }
    }
}

/// A hardware address that leads to several tunnels has an entry for each (bridge(8)).
fn replace(kind: Kind, state: &BeyondState) -> u16 {
    let address = state
        .attributes
        .iter()
        .find(|(kind, _)| *kind == NDA_LLADDR);
    let several =
        |mac: &[u8]| mac.iter().all(|b| *b == 0) || mac.first().is_some_and(|b| b & 1 != 0);
    match address {
        Some((_, mac)) if kind == Kind::Fdb && several(mac) => NLM_F_APPEND,
        _ => NLM_F_REPLACE,
    }
}

fn word(state: &BeyondState) -> Option<&Vec<u8>> {
    let mut words = state.attributes.iter();
    words
        .find(|(kind, _)| *kind == KIND)
        .map(|(_, value)| value)
}

fn make(kind: Kind, state: &BeyondState) -> Question {
    let mut body = state.header.clone();
    attach(&mut body, &state.attributes);
    attach(&mut body, &state.carried);
    Question::route(kind.number(), body)
}

fn remove(kind: Kind, state: &BeyondState) -> Question {
    let mut body = state.header.clone();
    match kind {
        // Nothing but its number is taken.
        Kind::NextHop => {
            body.fill(0);
            let id = state
                .attributes
                .iter()
                .filter(|(kind, _)| *kind == NEXT_HOP_ID);
            attach(&mut body, &id.cloned().collect());
        }
        Kind::Fdb
        | Kind::Queue
        | Kind::QueueClass
        | Kind::Filter
        | Kind::Label
        | Kind::Link
        | Kind::Vlan => {
            attach(&mut body, &state.attributes);
        }
    }
    Question::route(kind.number() + 1, body)
}

/// Only what differs: not every driver takes what it has already.
async fn set_link(before: &BeyondState, now: &BeyondState) -> Result<(), NetlinkError> {
    let differing = |attribute: &&(u16, Vec<u8>)| !now.attributes.contains(attribute);
    let mut attributes: Attributes = before
        .attributes
        .iter()
        .filter(differing)
        .cloned()
        .collect();
    let has = |state: &BeyondState| state.attributes.iter().any(|(kind, _)| *kind == ALIAS);
    if has(now) && !has(before) {
        // An empty one takes it away.
        attributes.push((ALIAS, Vec::new()));
    }
    let mut body = before.header.clone();
    // What is not among them is left alone (`ifi_change`).
    body[12..16].copy_from_slice(&FLAGS.to_ne_bytes());
    for (kind, value) in &attributes {
        let nested = if *kind == LINK_INFO { NESTED } else { 0 };
        put(&mut body, kind | nested, value);
    }
    tell_with(&Question::route(Kind::Link.number(), body), 0).await
}

fn vlan(number: u16, state: &BeyondState, is_bridge: &impl Fn(u32) -> bool) -> Question {
    let index = u32_at(&state.header, 0);
    let mut body = vec![0; 16];
    body[0] = BRIDGE;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut spec = Vec::new();
    if is_bridge(index) {
        put(&mut spec, BRIDGE_FLAGS, &SELF.to_ne_bytes());
    }
    for (_, info) in &state.attributes {
        put(&mut spec, BRIDGE_VLAN_INFO, info);
    }
    put(&mut body, AF_SPEC | NESTED, &spec);
    Question::route(number, body)
}
