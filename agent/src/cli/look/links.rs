//! `aizen links`.

use std::io::{self, Write};

use aizen_protocol::record::{Duplex, Ethernet, Link, LinkDetail, OperState, Port, PortState};
use serde_json::{Value, json};

use super::sample::Sample;
use crate::cli::screen::{Align, Screen, Table, bit_rate};

pub(super) fn write(
    out: &mut impl Write,
    before: Option<&Sample>,
    now: &Sample,
    screen: &Screen,
) -> io::Result<()> {
    table(before, now).write(out, screen)
}

pub(super) fn table(before: Option<&Sample>, now: &Sample) -> Table {
    let mut table = Table::new(&[
        ("LINK", Align::Left),
        ("STATE", Align::Left),
        ("KIND", Align::Left),
        ("SPEED", Align::Left),
        ("MTU", Align::Right),
        ("RX", Align::Right),
        ("TX", Align::Right),
        ("ERRORS", Align::Right),
        ("DROPPED", Align::Right),
        ("FLAPS", Align::Right),
        ("ADDRESSES", Align::Left),
    ]);
    for link in &now.links {
        table.row(row(before, now, link));
    }
    table
}

fn row(before: Option<&Sample>, now: &Sample, link: &Link) -> Vec<String> {
    let rates = before.and_then(|before| now.link_rates(before, link));
    let ethernet = now.ethernet.iter().find(|e| e.link == link.index);
    let total = |counted: Option<u64>| counted.map_or_else(|| "-".to_owned(), |c| c.to_string());
    let addresses = now.addresses.iter().filter(|a| a.link == link.index);
    vec![
        link.name.clone(),
        state(link),
        kind(now, link),
        ethernet.map_or_else(|| "-".to_owned(), speed),
        link.mtu.to_string(),
        rates.map_or_else(|| "-".to_owned(), |r| bit_rate(r.rx_bits)),
        rates.map_or_else(|| "-".to_owned(), |r| bit_rate(r.tx_bits)),
        total(
            link.counters
                .map(|c| c.rx_errors.saturating_add(c.tx_errors)),
        ),
        total(
            link.counters
                .map(|c| c.rx_dropped.saturating_add(c.tx_dropped)),
        ),
        total(link.carrier_changes.map(u64::from)),
        addresses
            .map(|address| address.address.to_string())
            .collect::<Vec<_>>()
            .join(" "),
    ]
}

/// What a person wants to know first: is it meant to be up, and is something at the other end?
fn state(link: &Link) -> String {
    let word = match (link.admin_up, link.carrier, link.oper) {
        (false, ..) => "set down",
        (true, Some(false), _) => "no carrier",
        (true, _, OperState::Up) => "up",
        (true, _, OperState::Unknown) if link.loopback || link.carrier == Some(true) => "up",
        (true, _, OperState::LowerLayerDown) => "lower link down",
        (true, _, OperState::Dormant) => "dormant",
        (true, _, OperState::Testing) => "testing",
        (true, _, OperState::Down | OperState::NotPresent) => "down",
        (true, _, OperState::Unknown) => "unknown",
    };
    match &link.port {
        Some(Port::Bridge { state, .. }) if *state != PortState::Forwarding && word == "up" => {
            let state = match state {
                PortState::Disabled => "disabled",
                PortState::Listening => "listening",
                PortState::Learning => "learning",
                PortState::Blocking => "blocking",
                PortState::Forwarding => "forwarding",
            };
            format!("up, {state}")
        }
        Some(Port::Bond { active: false, .. }) if word == "up" => "up, backup".to_owned(),
        _ => word.to_owned(),
    }
}

fn kind(now: &Sample, link: &Link) -> String {
    let mut kind = match &link.detail {
        Some(LinkDetail::Vlan { id, .. }) => {
            let under = link.parent.map(|parent| now.link_name(parent));
            format!("vlan {id} on {}", under.unwrap_or_else(|| "?".to_owned()))
        }
        Some(LinkDetail::Bond { mode, .. }) => format!("bond {mode}"),
        _ if link.loopback => "loopback".to_owned(),
        _ => link.driver_kind.clone().unwrap_or_else(|| "-".to_owned()),
    };
    if let Some(master) = link.master {
        kind.push_str(&format!(" in {}", now.link_name(master)));
    }
    kind
}

fn speed(ethernet: &Ethernet) -> String {
    let Some(mbps) = ethernet.speed_mbps else {
        return "-".to_owned();
    };
    let half = match ethernet.duplex {
        Some(Duplex::Half) => " half",
        Some(Duplex::Full) | None => "",
    };
    format!("{}{half}", bit_rate(f64::from(mbps) * 1e6))
}

pub(super) fn json(before: Option<&Sample>, now: &Sample) -> Value {
    let links: Vec<Value> = now
        .links
        .iter()
        .map(|link| {
            let mut value = json!(link);
            let of_link = |index: u32| index == link.index;
            value["rates"] = json!(before.and_then(|before| now.link_rates(before, link)));
            value["addresses"] = now
                .addresses
                .iter()
                .filter(|a| of_link(a.link))
                .map(|a| json!(a))
                .collect();
            value["ethernet"] = json!(now.ethernet.iter().find(|e| of_link(e.link)));
            value["queues"] = now
                .queues
                .iter()
                .filter(|q| of_link(q.link))
                .map(|q| json!(q))
                .collect();
            value
        })
        .collect();
    json!({ "links": links })
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::{link, sample};
    use super::*;

    #[test]
    fn a_link_says_first_why_it_carries_nothing() {
        let up = Link {
            admin_up: true,
            oper: OperState::Up,
            carrier: Some(true),
            ..link(0)
        };
        assert_eq!(state(&up), "up");
        let unplugged = Link {
            carrier: Some(false),
            oper: OperState::Down,
            ..up.clone()
        };
        assert_eq!(state(&unplugged), "no carrier");
        let blocked = Link {
            port: Some(Port::Bridge {
                state: PortState::Blocking,
                pvid: None,
                vlans: Vec::new(),
            }),
            ..up.clone()
        };
        assert_eq!(state(&blocked), "up, blocking");
        assert_eq!(
            state(&Link {
                admin_up: false,
                ..up
            }),
            "set down"
        );
    }

    #[test]
    fn a_link_without_a_second_reading_shows_no_rate() {
        let now = sample(1, vec![link(5)]);
        let row = row(None, &now, &now.links[0]);
        assert_eq!(row[5..9], ["-", "-", "0", "0"]);
        assert_eq!(json(None, &now)["links"][0]["rates"], Value::Null);
    }
}
