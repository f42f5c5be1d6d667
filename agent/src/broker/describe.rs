//! What an operation did, in the form that people approve: object, diff, way back, owner, how long it holds.

use std::fmt::Display;

use aizen_protocol::effect::{Lasts, ObjectChange, ObjectKind};
use aizen_protocol::id::Digest;
use aizen_protocol::private::Text;

use super::owner::{self, Owner};
use super::{Act, World, file, nft, service, uci};
use crate::rollback;
use crate::rollback::checkpoint::Network;
use crate::rollback::difference::Difference;
use crate::rollback::file::FileState;
use crate::rollback::inverse::{Inverse, ObjectId};
use crate::rollback::link::{LinkState, Names};
use crate::rollback::neighbour::NeighbourState;
use crate::rollback::nft::Tables;
use crate::rollback::route::{RouteKey, RouteState};
use crate::rollback::rule::{RuleKey, RuleState};

/// Objects that are shown of those that moved with one operation: a router with a full table loses a million.
const MOVED: usize = 64;

/// The two states between which an operation was done.
pub(super) struct Described<'a> {
    pub(super) world: &'a World,
    pub(super) tables: &'a Tables,
    pub(super) after: &'a Network,
    pub(super) names: Names,
}

impl Described<'_> {
    /// The object of the operation itself, as read back.
    pub(super) fn object(&self, inverse: &Inverse, act: &Act) -> ObjectChange {
        let back = inverse.to_string();
        match inverse {
            Inverse::Route { key, before, .. } => {
                let routes = self.after.routes.iter().filter(|r| r.key == *key);
                let now: Vec<RouteState> = routes.cloned().collect();
                self.route(key, before, &now, back)
            }
            Inverse::Address { before, after } => {
                self.address(before.as_slice(), after.as_slice(), back)
            }
            Inverse::Link { before, after } => {
                let mut links = self.after.links.iter();
                let now = links.find(|l| l.name == before.name).unwrap_or(after);
                self.link(before, now, back)
            }
            Inverse::Rule { key, before, .. } => self.rule(key, before, back),
            Inverse::Neighbour {
                dev,
                address,
                before,
                after,
            } => {
                let name = format!("{address} dev {dev}");
                neighbour(name, before.as_ref(), after.as_ref(), back)
            }
            Inverse::Sysctl { key, before, after } => sysctl(key, before, after, back),
            Inverse::File { path, before, .. } => {
                let text = file::diff(path, before, left_by(act));
                let owner = owner::of_file(path, before);
                change(ObjectKind::File, path.clone(), text, back, owner)
            }
            Inverse::Nft { table, before, .. } => change(
                ObjectKind::Nft,
                table.clone(),
                nft::diff(table, before.as_ref(), self.tables),
                back,
                owner::of_table(self.world, table),
            ),
            Inverse::Service { name, deed, before } => change(
                ObjectKind::Service,
                name.clone(),
                service::diff(name, *deed, *before),
                back,
                by(rollback::service::owner(self.world), Lasts::UntilReboot),
            ),
            Inverse::Peer {
                dev,
                key,
                before,
                after,
            } => {
                let name = format!("{dev} peer {key}");
                let text = lines(before.as_slice(), after.as_slice());
                change(ObjectKind::Wireguard, name, text, back, in_kernel())
            }
            Inverse::Uci { keys, .. } => change(
                ObjectKind::Uci,
                keys.first().map(|k| k.key.to_string()).unwrap_or_default(),
                uci::diff(keys),
                back,
                by("uci", Lasts::ForGood),
            ),
            // No operation has this way back: what a script does itself is told by `own`.
            Inverse::Unbrokered { .. } => change(
                ObjectKind::Link,
                "all that the script changed itself".to_owned(),
                String::new(),
                back,
                in_kernel(),
            ),
            Inverse::UciReload { package } => change(
                ObjectKind::Service,
                format!("reload of {package}"),
                format!("+ services of {package} read their configuration again\n"),
                back,
                by("procd", Lasts::UntilReboot),
            ),
        }
    }

    fn rule(&self, key: &RuleKey, before: &[RuleState], back: String) -> ObjectChange {
        let of = |rules: &[RuleState]| -> Vec<RuleState> {
            let same = rules.iter().filter(|r| r.key().as_ref() == Some(key));
            same.cloned().collect()
        };
        let text = lines(&of(before), &of(&self.after.rules));
        change(ObjectKind::Rule, key.to_string(), text, back, in_kernel())
    }

    /// What moved with it, save what the kernel makes and takes by itself whenever a link or an address does.
    pub(super) fn moved(&self, differences: &[Difference], inverse: &Inverse) -> Vec<ObjectChange> {
        let object = inverse.object();
        let other = |difference: &&Difference| {
            match difference {
            Difference::Route { key, .. } => object != ObjectId::Route(key.clone()),
            Difference::Link { before, now } => before.iter().chain(now).all(|l| object != ObjectId::Link(l.name.clone())),
            Difference::Address { before, now } => before.iter().chain(now).all(|a| {
                let link_local = matches!(a.address.address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
                let own = object == ObjectId::Address(a.dev.clone(), a.address.to_string());
                !own && !link_local && !a.is_kernel_made()
            }),
            Difference::File { .. }
            | Difference::AddressOrder { .. }
            | Difference::Rule { .. }
            | Difference::Neighbour { .. }
            | Difference::Nft { .. }
            | Difference::Beyond { .. }
            | Difference::Service { .. }
            | Difference::Peer { .. }
            | Difference::Sysctl { .. } => false,
        }
        };
        let mut moved: Vec<ObjectChange> = differences
            .iter()
            .filter(other)
            .filter_map(|d| self.side(d))
            .collect();
        if moved.len() > MOVED {
            let rest = moved.split_off(MOVED);
            moved.push(summary(&rest));
        }
        moved
    }

    fn side(&self, difference: &Difference) -> Option<ObjectChange> {
        match difference {
            Difference::Route { .. } | Difference::Link { .. } | Difference::Address { .. } => {
                self.by_difference(difference)
            }
            _ => None,
        }
    }

    /// What a script did with its own hands, save what the kernel makes of it.
    pub(super) fn own(&self, difference: &Difference) -> Option<ObjectChange> {
        match difference {
            Difference::Address {
                before: None,
                now: Some(now),
            } if now.is_kernel_made() => None,
            _ => self.by_difference(difference),
        }
    }

    fn by_difference(&self, difference: &Difference) -> Option<ObjectChange> {
        let back = "comes back with the rollback".to_owned();
        Some(match difference {
            Difference::Route { key, before, now } => {
                let made = |routes: &[RouteState]| {
                    routes
                        .iter()
                        .filter(|r| !r.is_kernel_made())
                        .cloned()
                        .collect::<Vec<_>>()
                };
                let (before, now) = (made(before), made(now));
                return (before != now).then(|| self.route(key, &before, &now, back));
            }
            Difference::Link {
                before: Some(before),
                now: Some(now),
            } => self.link(before, now, back),
            Difference::Address { before, now } => {
                self.address(before.as_slice(), now.as_slice(), back)
            }
            Difference::Rule { rule, before } => {
                let (old, new) = match before {
                    true => (vec![rule.clone()], Vec::new()),
                    false => (Vec::new(), vec![rule.clone()]),
                };
                let name = rule
                    .key()
                    .map_or_else(|| rule.to_string(), |key| key.to_string());
                change(ObjectKind::Rule, name, lines(&old, &new), back, in_kernel())
            }
            Difference::Neighbour { before, now } => {
                let any = before.as_ref().or(now.as_ref())?;
                let name = format!("{} dev {}", any.address, any.dev);
                neighbour(name, before.as_ref(), now.as_ref(), back)
            }
            Difference::Sysctl { key, before, now } => {
                let said = |value: &Option<String>| value.clone().unwrap_or_default();
                sysctl(key, &said(before), &said(now), back)
            }
            Difference::Peer {
                dev,
                key,
                before,
                now,
            } => {
                let text = lines(before.as_slice(), now.as_slice());
                let name = format!("{dev} peer {key}");
                change(ObjectKind::Wireguard, name, text, back, in_kernel())
            }
            Difference::Nft { table, before, .. } => change(
                ObjectKind::Nft,
                table.clone(),
                nft::diff(table, before.as_ref(), self.tables),
                back,
                owner::of_table(self.world, table),
            ),
            // No manifest can declare it.
            Difference::Beyond { .. } => return None,
            Difference::Link { .. }
            | Difference::AddressOrder { .. }
            | Difference::File { .. }
            | Difference::Service { .. } => return None,
        })
    }

    fn route(
        &self,
        key: &RouteKey,
        before: &[RouteState],
        now: &[RouteState],
        back: String,
    ) -> ObjectChange {
        let index = |route: &RouteState| {
            let dev = route.hops.first().and_then(|hop| hop.dev.as_deref())?;
            self.names.index(dev)
        };
        let any = before.first().or(now.first());
        let owner = any.map(|route| owner::of_route(self.world, route, index(route)));
        let owner = owner.unwrap_or_else(in_kernel);
        change(
            ObjectKind::Route,
            key.to_string(),
            lines(before, now),
            back,
            owner,
        )
    }

    fn address(
        &self,
        before: &[crate::rollback::address::AddressState],
        now: &[crate::rollback::address::AddressState],
        back: String,
    ) -> ObjectChange {
        let any = before.first().or(now.first());
        let name = any
            .map(|a| format!("{} dev {}", a.address, a.dev))
            .unwrap_or_default();
        let owner = any.map(|a| owner::of_address(self.world, a, self.names.index(&a.dev)));
        let owner = owner.unwrap_or_else(in_kernel);
        change(ObjectKind::Address, name, lines(before, now), back, owner)
    }

    fn link(&self, before: &LinkState, now: &LinkState, back: String) -> ObjectChange {
        let line = |l: &LinkState| {
            format!(
                "{} {} mtu {}",
                l.name,
                if l.up { "up" } else { "down" },
                l.mtu
            )
        };
        let owner = owner::of_device(self.world, self.names.index(&before.name));
        let owner = owner.unwrap_or_else(in_kernel);
        change(
            ObjectKind::Link,
            before.name.clone(),
            lines(&[line(before)], &[line(now)]),
            back,
            owner,
        )
    }
}

/// What an operation on a file leaves there.
fn left_by(act: &Act) -> &FileState {
    match act {
        Act::File(act) => &act.state,
        Act::Route(_)
        | Act::Address(_)
        | Act::Link(_)
        | Act::Rule(_)
        | Act::Neighbour(_)
        | Act::Nft(_)
        | Act::Service(_)
        | Act::Wireguard(_)
        | Act::Uci(_)
        | Act::Sysctl { .. } => &FileState::Absent,
    }
}

fn sysctl(
    key: &impl Display,
    before: &impl Display,
    after: &impl Display,
    back: String,
) -> ObjectChange {
    let said = |value: &dyn Display| [format!("{key} = {value}")];
    let text = lines(&said(before), &said(after));
    change(ObjectKind::Sysctl, key.to_string(), text, back, in_kernel())
}

fn neighbour(
    name: String,
    before: Option<&NeighbourState>,
    after: Option<&NeighbourState>,
    back: String,
) -> ObjectChange {
    let text = match (before, after) {
        (None, None) => format!("- {name}, as it was learned\n"),
        (before, after) => lines(before.as_slice(), after.as_slice()),
    };
    change(ObjectKind::Neighbour, name, text, back, in_kernel())
}

/// Many objects as one: how many, and a checksum that another set of them would not have.
fn summary(rest: &[ObjectChange]) -> ObjectChange {
    let all: String = rest
        .iter()
        .map(|c| format!("{}\n{}", c.object, c.diff))
        .collect();
    let count = rest.len();
    change(
        ObjectKind::Route,
        format!("{count} more"),
        format!(
            "[{count} more objects moved; SHA-256 of all: {}]\n",
            Digest::of(all.as_bytes())
        ),
        "they come back with the rollback".to_owned(),
        in_kernel(),
    )
}

/// Nobody keeps it in a file.
fn in_kernel() -> Owner {
    by("kernel", Lasts::UntilReboot)
}

fn by(name: &str, lasts: Lasts) -> Owner {
    Owner {
        name: name.to_owned(),
        lasts,
    }
}

fn lines<T: std::fmt::Display>(before: &[T], now: &[T]) -> String {
    let sign = |sign: char, items: &[T]| {
        items
            .iter()
            .map(|i| format!("{sign} {i}\n"))
            .collect::<String>()
    };
    sign('-', before) + &sign('+', now)
}

fn change(
    kind: ObjectKind,
    object: String,
    diff: String,
    inverse: String,
    owner: Owner,
) -> ObjectChange {
    ObjectChange {
        kind,
        object: Text(object),
        diff: Text(visible(&diff)),
        inverse: Text(inverse),
        owner: owner.name,
        lasts: owner.lasts,
    }
}

/// A text in which nothing moves the cursor, hides or turns other text.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if (c.is_control() && !matches!(c, '\n' | '\t')) || hides {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// At most `bound` bytes of it and, if it was cut, the checksum of all of it, so that two long texts that differ
/// anywhere differ here too.
pub(crate) fn cut(text: String, bound: usize) -> String {
    if text.len() <= bound {
        return text;
    }
    let end = (0..=bound)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    let end = text[..end].rfind('\n').map_or(end, |at| at + 1);
    format!(
        "{}[{} of {} bytes shown; SHA-256 of all: {}]\n",
        &text[..end],
        end,
        text.len(),
        Digest::of(text.as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_made_visible_and_lines_stay_lines() {
        assert_eq!(
            visible("a\tb\n\u{1b}[2Jc\r\u{202e}d"),
            "a\tb\n\\u{1b}[2Jc\\u{d}\\u{202e}d"
        );
    }

    #[test]
    fn texts_that_differ_only_behind_the_cut_stay_different() {
        let long = |end: &str| cut("line\n".repeat(1000) + end, 100);
        assert_ne!(long("a"), long("b"));
        assert!(long("a").len() < 300);
        assert_eq!(
            cut("é".repeat(60), 101).split('[').next().unwrap().len(),
            100
        );
        assert_eq!(cut("short".to_owned(), 5), "short");
    }
}
