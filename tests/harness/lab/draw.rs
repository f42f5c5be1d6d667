//! Names and addresses, drawn anew for each run from a seed: no rule can know the lab.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Where a net's addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// RFC 1918.
    #[default]
    Private,
    /// RFC 6598, between a provider and its customers.
    Carrier,
    /// Public IPv4.
    Public,
    /// IPv6, a /64.
    Ipv6,
    /// IPv6 of one site (RFC 4193), a /64.
    UniqueLocal,
}

/// What the placeholders of a topology stand for in this run: `{wan}` an interface, `{wan.mac}` its address,
/// `{gateway}` a host, `{access.net}` and `{access.len}` a net, `{site}` a name.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
    values: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Draw {
    /// The same seed and the same questions give the same values.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            values: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let place = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        of.get(place).copied().unwrap_or("x")
    }

    /// Sets a value that was not drawn.
    ///
    /// # Errors
    /// If the placeholder has a value already.
    pub fn set(&mut self, key: &str, value: String) -> Result<()> {
        if self.values.insert(key.to_owned(), value).is_some() {
            bail!("the placeholder {{{key}}} is defined twice");
        }
        Ok(())
    }

    /// Draws an interface name and a hardware address for one end of a cable.
    ///
    /// # Errors
    /// As [`Draw::set`].
    pub fn interface(&mut self, host: &str, key: &str) -> Result<()> {
        let name = loop {
            let stem = self.pick(&[
                "eth", "enp", "ens", "lan", "wan", "port", "ge", "sfp", "net",
            ]);
            let number = self.below(40);
            let name = match stem {
                "enp" => format!("enp{number}s0"),
                _ => format!("{stem}{number}"),
            };
            if self.taken.insert(format!("{host} {name}")) {
                break name;
            }
        };
        let tail = self.next();
        // 02: locally administered, one host (IEEE 802).
        let mac: Vec<String> = (0..5)
            .map(|byte| format!("{:02x}", (tail >> (8 * byte)) & 0xff))
            .collect();
        self.set(&format!("{key}.mac"), format!("02:{}", mac.join(":")))?;
        self.set(key, name)
    }

    /// Draws a host name of two random labels.
    ///
    /// # Errors
    /// As [`Draw::set`].
    pub fn name(&mut self, key: &str) -> Result<()> {
        let word = |draw: &mut Self| {
            let syllables = 2 + draw.below(2);
            (0..syllables)
                .map(|_| {
                    draw.pick(&[
                        "ka", "lo", "mi", "ner", "tos", "vu", "ber", "sil", "dra", "gen",
                    ])
                })
                .collect::<String>()
        };
        let (host, domain) = (word(self), word(self));
        self.set(key, format!("{host}{}.{domain}.test", self.state % 97))
    }

    /// Draws a net and an address in it for each host.
    ///
    /// # Errors
    /// As [`Draw::set`].
    pub fn net(&mut self, key: &str, range: Range, hosts: &[String]) -> Result<()> {
        match range {
            Range::Private | Range::Carrier | Range::Public => self.net4(key, range, hosts),
            Range::Ipv6 | Range::UniqueLocal => self.net6(key, range, hosts),
        }
    }

    fn net4(&mut self, key: &str, range: Range, hosts: &[String]) -> Result<()> {
        let (a, b, c) = loop {
            let (c, b) = (self.below(256), self.below(256));
            let (a, b) = match (range, self.below(3)) {
                (Range::Carrier, _) => (100, 64 + b % 64),
                (Range::Public, n) => ([45, 89, 185][usize::try_from(n).unwrap_or(0)], b),
                (_, 0) => (192, 168),
                (_, 1) => (172, 16 + b % 16),
                _ => (10, b),
            };
            if self.taken.insert(format!("net {a}.{b}.{c}")) {
                break (a, b, c);
            }
        };
        let len = 24 + self.below(4);
        let size = 1_u64 << (32 - len);
        let base = self.below(256 / size) * size;
        self.set(&format!("{key}.net"), format!("{a}.{b}.{c}.{base}/{len}"))?;
        self.set(&format!("{key}.len"), len.to_string())?;
        self.set(&format!("{key}.first"), format!("{a}.{b}.{c}.{}", base + 1))?;
        self.set(
            &format!("{key}.last"),
            format!("{a}.{b}.{c}.{}", base + size - 2),
        )?;
        // The first hosts by turns, so that pools can lie above them: 1 to 15.
        for host in hosts {
            let last = loop {
                let last = base + 1 + self.below(15);
                if self.taken.insert(format!("host {a}.{b}.{c}.{last}")) {
                    break last;
                }
            };
            self.set(host, format!("{a}.{b}.{c}.{last}"))?;
        }
        let pool = base + 17;
        self.set(&format!("{key}.pool"), format!("{a}.{b}.{c}.{pool}"))?;
        self.set(
            &format!("{key}.pool_last"),
            format!("{a}.{b}.{c}.{}", pool + 7),
        )
    }

    fn net6(&mut self, key: &str, range: Range, hosts: &[String]) -> Result<()> {
        let top: u128 = match range {
            Range::UniqueLocal => 0xfd00 | u128::from(self.below(256)),
            _ => 0x2a00 | u128::from(self.below(16)),
        };
        let middle = u128::from(self.next() & 0xffff_ffff_ffff);
        let prefix = top << 112 | middle << 64;
        self.set(
            &format!("{key}.net"),
            format!("{}/64", Ipv6Addr::from(prefix)),
        )?;
        self.set(&format!("{key}.len"), "64".into())?;
        for host in hosts {
            let number = u128::from(self.next() & 0xffff | 0x10);
            self.set(host, Ipv6Addr::from(prefix | number).to_string())?;
        }
        Ok(())
    }

    /// All placeholders and their values.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// One value.
    ///
    /// # Errors
    /// If nothing was drawn for it.
    pub fn value(&self, key: &str) -> Result<&str> {
        self.values
            .get(key)
            .map(String::as_str)
            .with_context(|| format!("nothing is known as {{{key}}} in this topology"))
    }

    /// Replaces the placeholders of a text. Braces around anything but lower-case words, digits, `_` and `.` stay.
    ///
    /// # Errors
    /// As [`Draw::value`].
    pub fn fill(&self, text: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let key = after.split_once('}').filter(|(key, _)| is_placeholder(key));
            if let Some((key, after)) = key {
                filled.push_str(self.value(key)?);
                rest = after;
            } else {
                filled.push('{');
                rest = after;
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn is_placeholder(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_lowercase())
        && key
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_.".contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64) -> Draw {
        let mut draw = Draw::new(seed);
        draw.interface("device", "wan").unwrap();
        draw.net(
            "access",
            Range::Carrier,
            &["gateway".into(), "device_wan".into()],
        )
        .unwrap();
        draw.net("six", Range::Ipv6, &["gateway6".into()]).unwrap();
        draw.name("site").unwrap();
        draw
    }

    #[test]
    fn a_seed_gives_the_same_values_again_and_another_gives_others() {
        assert_eq!(drawn(7).values(), drawn(7).values());
        assert_ne!(drawn(7).values(), drawn(8).values());
    }

    #[test]
    fn hosts_of_a_net_differ_and_parse() {
        for seed in 0..200 {
            let draw = drawn(seed);
            let address = |key| {
                draw.value(key)
                    .unwrap()
                    .parse::<std::net::IpAddr>()
                    .unwrap()
            };
            assert_ne!(address("gateway"), address("device_wan"), "seed {seed}");
            assert!(address("gateway6").is_ipv6());
            assert!(draw.value("wan").unwrap().len() <= 15);
        }
    }

    #[test]
    fn placeholders_are_replaced_and_the_braces_of_nft_are_not() {
        let draw = drawn(1);
        let gateway = draw.value("gateway").unwrap();
        let text = draw.fill("chain x { ip daddr {gateway} drop; }").unwrap();
        assert_eq!(text, format!("chain x {{ ip daddr {gateway} drop; }}"));
        assert!(draw.fill("{nobody}").is_err());
    }
}
