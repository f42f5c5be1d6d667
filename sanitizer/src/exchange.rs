//! The two directions: real values into pseudonyms, which learns, and back, which only looks up.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aizen_protocol::private::{Mac, Prefix};

use crate::count::Counts;
use crate::map::Map;
use crate::name::{self, Replaced, Whole};
use crate::pseudonym::Pseudonyms;
use crate::token::TokenKind;
use crate::vocabulary;

/// What a walk over text does with the values that it finds.
pub(crate) trait Exchange {
    fn address(&mut self, value: IpAddr) -> IpAddr;
    fn prefix(&mut self, value: Prefix) -> Prefix;
    fn mac(&mut self, value: Mac) -> Mac;
    /// A dotted word or one that looks like a pseudonym; none if it is no name.
    fn name(&mut self, value: &str) -> Option<String>;
    /// A value that is a name by its place.
    fn certain_name(&mut self, value: &str) -> String;
    /// A typed value; none if this direction leaves it.
    fn token(&mut self, kind: TokenKind, value: &str) -> Option<String>;
    /// The real value behind a token; none if this direction leaves it.
    fn known_token(&mut self, kind: TokenKind, token: &str) -> Option<String>;
    /// The real name behind a single pseudonym; none if this direction leaves it.
    fn known_name(&mut self, pseudonym: &str) -> Option<String>;
    /// True if this address was met before: then its decimal and hexadecimal forms are meant, too.
    fn knows_address(&self, value: IpAddr) -> bool;
    /// True if this MAC address was met before.
    fn knows_mac(&self, value: Mac) -> bool;
}

/// Real values into pseudonyms.
pub(crate) struct Forward<'a> {
    pub(crate) keyed: &'a Pseudonyms,
    pub(crate) map: &'a mut Map,
    pub(crate) counts: &'a mut Counts,
}

impl Forward<'_> {
    /// A name field, whatever it holds.
    pub(crate) fn typed_name(&mut self, real: &str) -> String {
        let Self { keyed, map, counts } = self;
        name::pseudonym(keyed, real, &|_| false, &mut |r| {
            note(keyed, map, counts, r)
        })
    }
}

fn note(keyed: &Pseudonyms, map: &mut Map, counts: &mut Counts, replaced: Replaced) {
    match replaced {
        Replaced::Address { real, pseudonym } if !keyed.address_stays(real) => {
            counts.replaced("address");
            map.address(real, pseudonym);
        }
        Replaced::Prefix { real, pseudonym } if !keyed.prefix_stays(real) => {
            counts.replaced("prefix");
            map.prefix(real, pseudonym);
        }
        Replaced::Address { .. } | Replaced::Prefix { .. } => {}
        Replaced::Label { real, pseudonym } => {
            counts.replaced("name");
            map.label(real, pseudonym);
        }
    }
}

impl Exchange for Forward<'_> {
    fn address(&mut self, value: IpAddr) -> IpAddr {
        if self.keyed.address_stays(value) {
            return value;
        }
        let pseudonym = match self.map.addresses.pseudonym(&value) {
            Some(known) => *known,
            None => self.keyed.address(value),
        };
        self.counts.replaced("address");
        self.map.address(value, pseudonym);
        pseudonym
    }

    fn prefix(&mut self, value: Prefix) -> Prefix {
        if self.keyed.prefix_stays(value) {
            return value;
        }
        let pseudonym = match self.map.prefixes.pseudonym(&value) {
            Some(known) => *known,
            None => self.keyed.prefix(value),
        };
        self.counts.replaced("prefix");
        self.map.prefix(value, pseudonym);
        // An interface's address is met without its length, too.
        if self.keyed.address(value.address) == pseudonym.address
            && !self.keyed.address_stays(value.address)
        {
            self.map.address(value.address, pseudonym.address);
        }
        pseudonym
    }

    fn mac(&mut self, value: Mac) -> Mac {
        if self.keyed.mac_stays(value) {
            return value;
        }
        let pseudonym = match self.map.macs.pseudonym(&value) {
            Some(known) => *known,
            None => self.keyed.mac(value),
        };
        self.counts.replaced("mac");
        self.map.mac(value, pseudonym);
        pseudonym
    }

    fn name(&mut self, value: &str) -> Option<String> {
        let lower = value.to_lowercase();
        let learned = |label: &str| {
            !vocabulary::is_common(label) && self.map.labels.pseudonym(label).is_some()
        };
        let dots = lower.bytes().filter(|b| *b == b'.').count();
        let last = lower.rsplit('.').next().unwrap_or_default();
        let by_ending = dots > 0
            && vocabulary::is_top_level(last)
            && (dots > 1 || !vocabulary::is_ambiguous_top_level(last))
            && !lower.starts_with('.');
        if by_ending || lower.split('.').any(learned) {
            Some(self.certain_name(value))
        } else {
            None
        }
    }

    fn certain_name(&mut self, value: &str) -> String {
        let Self { keyed, map, counts } = self;
        // Text that quotes the orchestrator holds pseudonyms already; they must stay recognisable.
        let pseudonyms: BTreeSet<String> = value
            .split('.')
            .filter(|l| map.labels.real(*l).is_some())
            .map(str::to_owned)
            .collect();
        let done = |label: &str| pseudonyms.contains(label);
        name::pseudonym(keyed, value, &done, &mut |r| note(keyed, map, counts, r))
    }

    fn token(&mut self, kind: TokenKind, value: &str) -> Option<String> {
        let token = self.keyed.token(kind, value);
        self.counts.replaced(kind.word());
        self.map.token(value.to_owned(), token.clone());
        Some(token)
    }

    fn known_token(&mut self, _: TokenKind, _: &str) -> Option<String> {
        None
    }

    fn known_name(&mut self, _: &str) -> Option<String> {
        None
    }

    fn knows_address(&self, value: IpAddr) -> bool {
        self.map.addresses.pseudonym(&value).is_some()
    }

    fn knows_mac(&self, value: Mac) -> bool {
        self.map.macs.pseudonym(&value).is_some()
    }
}

/// Pseudonyms into real values, as far as the map knows them.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    pub(crate) keyed: &'a Pseudonyms,
    pub(crate) map: &'a Map,
}

impl Backward<'_> {
    /// The real address; one that stays is its own.
    pub(crate) fn real_address(&self, pseudonym: IpAddr) -> Option<IpAddr> {
        let real = self.map.addresses.real(&pseudonym).copied();
        real.or_else(|| self.keyed.address_stays(pseudonym).then_some(pseudonym))
    }

    /// The real prefix.
    pub(crate) fn real_prefix(&self, pseudonym: Prefix) -> Option<Prefix> {
        let real = self.map.prefixes.real(&pseudonym).copied();
        real.or_else(|| self.keyed.prefix_stays(pseudonym).then_some(pseudonym))
    }

    /// The real MAC address.
    pub(crate) fn real_mac(&self, pseudonym: Mac) -> Option<Mac> {
        let real = self.map.macs.real(&pseudonym).copied();
        real.or_else(|| self.keyed.mac_stays(pseudonym).then_some(pseudonym))
    }

    /// The real name; none if any label is unknown.
    pub(crate) fn real_name(&self, pseudonym: &str) -> Option<String> {
        name::reveal(
            self.keyed,
            pseudonym,
            &mut |whole| self.whole(whole),
            &|label| self.map.labels.real(label).cloned(),
        )
    }

    fn whole(&self, whole: Whole) -> Option<Whole> {
        match whole {
            Whole::Address(a) => self.real_address(a).map(Whole::Address),
            Whole::Network(p) => self.real_prefix(p).map(Whole::Network),
        }
    }
}

impl Exchange for Backward<'_> {
    fn address(&mut self, value: IpAddr) -> IpAddr {
        self.real_address(value).unwrap_or(value)
    }

    fn prefix(&mut self, value: Prefix) -> Prefix {
        let by_address = || Prefix {
            address: self.real_address(value.address).unwrap_or(value.address),
            length: value.length,
        };
        self.real_prefix(value).unwrap_or_else(by_address)
    }

    fn mac(&mut self, value: Mac) -> Mac {
        self.real_mac(value).unwrap_or(value)
    }

    fn name(&mut self, value: &str) -> Option<String> {
        let real = name::exchange(value, &mut |whole| self.whole(whole));
        if real.is_some() {
            return real;
        }
        let known = |label: &str| self.map.labels.real(label);
        value.split('.').any(|l| known(l).is_some()).then(|| {
            value
                .split('.')
                .map(|l| known(l).map_or(l, String::as_str))
                .collect::<Vec<_>>()
                .join(".")
        })
    }

    fn certain_name(&mut self, value: &str) -> String {
        self.name(value).unwrap_or_else(|| value.to_owned())
    }

    fn token(&mut self, _: TokenKind, _: &str) -> Option<String> {
        None
    }

    fn known_token(&mut self, _: TokenKind, token: &str) -> Option<String> {
        self.map.tokens.real(token).cloned()
    }

    fn known_name(&mut self, pseudonym: &str) -> Option<String> {
        self.map.labels.real(pseudonym).cloned()
    }

    fn knows_address(&self, value: IpAddr) -> bool {
        self.map.addresses.real(&value).is_some()
    }

    fn knows_mac(&self, value: Mac) -> bool {
        self.map.macs.real(&value).is_some()
    }
}
