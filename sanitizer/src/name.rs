//! Names, label by label, so that `a.b.example` and `c.b.example` still share their parent.
//!
//! A label that is nobody's own (a top-level domain, `localhost`, `_tcp`) stays; an address written inside a name
//! follows the address' pseudonym.

use std::net::{IpAddr, Ipv4Addr};

use aizen_protocol::private::Prefix;

use crate::pseudonym::Pseudonyms;
use crate::token::{digest_text, is_digest_text};
use crate::vocabulary;

/// What was replaced inside a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    Address { real: IpAddr, pseudonym: IpAddr },
    Prefix { real: Prefix, pseudonym: Prefix },
    Label { real: String, pseudonym: String },
}

/// The pseudonym of a name; each replacement inside it is told. A label for which `done` holds is a pseudonym already.
pub(crate) fn pseudonym(
    keyed: &Pseudonyms,
    real: &str,
    done: &dyn Fn(&str) -> bool,
    replaced: &mut dyn FnMut(Replaced),
) -> String {
    let whole = exchange(real, &mut |whole| match whole {
        Whole::Address(real) => {
            let pseudonym = keyed.address(real);
            replaced(Replaced::Address { real, pseudonym });
            Some(Whole::Address(pseudonym))
        }
        Whole::Network(real) => {
            let pseudonym = keyed.prefix(real);
            replaced(Replaced::Prefix { real, pseudonym });
            Some(Whole::Network(pseudonym))
        }
    });
    if let Some(whole) = whole {
        return whole;
    }
    let (head, zone) = split_reverse_zone(real);
    let head = labels(keyed, head, done, replaced);
    match zone {
        Some(zone) => format!("{head}.{}", pseudonym(keyed, zone, done, replaced)),
        None => head,
    }
}

/// The real name behind a pseudonym; none if a label of it is unknown.
pub(crate) fn reveal(
    keyed: &Pseudonyms,
    pseudonym: &str,
    whole: &mut dyn FnMut(Whole) -> Option<Whole>,
    label: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    if pseudonym.parse::<IpAddr>().is_ok()
        || parse_reverse(pseudonym.trim_end_matches('.')).is_some()
    {
        return exchange(pseudonym, whole);
    }
    let (head, zone) = split_reverse_zone(pseudonym);
    let parts: Vec<&str> = head.split('.').collect();
    let real: Option<Vec<String>> = parts
        .iter()
        .zip(labels_that_stay(keyed, &parts))
        .map(|(part, stays)| {
            let is_own = || stays || one_label(keyed, part, &mut |_| {}) == **part;
            label(part).or_else(|| is_own().then(|| (*part).to_owned()))
        })
        .collect();
    let head = real?.join(".");
    match zone {
        Some(zone) => Some(format!("{head}.{}", exchange(zone, whole)?)),
        None => Some(head),
    }
}

/// An address, or the network that a reverse zone stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Address(IpAddr),
    Network(Prefix),
}

/// Replaces a name that is nothing but an address, plain or reversed, in the same form.
pub(crate) fn exchange(name: &str, swap: &mut dyn FnMut(Whole) -> Option<Whole>) -> Option<String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return match swap(Whole::Address(address))? {
            Whole::Address(a) => Some(a.to_string()),
            Whole::Network(_) => None,
        };
    }
    let (bare, dot) = match name.strip_suffix('.') {
        Some(bare) => (bare, "."),
        None => (name, ""),
    };
    let whole = parse_reverse(bare)?;
    Some(write_reverse(swap(whole)?) + dot)
}

/// `7.1.168.192.in-addr.arpa` (RFC 1035 section 3.5), `….ip6.arpa` (RFC 3596), also of a zone with fewer labels.
pub(crate) fn parse_reverse(name: &str) -> Option<Whole> {
    let lower = name.to_ascii_lowercase();
    if let Some(octets) = lower.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0; 4];
        let mut count = 0_u8;
        for label in octets.rsplit('.') {
            *bytes.get_mut(usize::from(count))? = decimal(label)?;
            count += 1;
        }
        return Some(whole(Ipv4Addr::from(bytes).into(), count * 8));
    }
    let nibbles = lower.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0_u8;
    for label in nibbles.rsplit('.') {
        let nibble = u8::from_str_radix(label, 16).ok()?;
        if label.len() != 1 || count == 32 {
            return None;
        }
        bits |= u128::from(nibble) << (124 - 4 * u32::from(count));
        count += 1;
    }
    Some(whole(IpAddr::V6(bits.into()), count * 4))
}

fn whole(address: IpAddr, length: u8) -> Whole {
    let width = if address.is_ipv4() { 32 } else { 128 };
    if length == width {
        Whole::Address(address)
    } else {
        Whole::Network(Prefix { address, length })
    }
}

fn write_reverse(whole: Whole) -> String {
    let (address, length) = match whole {
        Whole::Address(a) => (a, if a.is_ipv4() { 32 } else { 128 }),
        Whole::Network(p) => (p.address, p.length),
    };
    let (mut labels, zone) = match address {
        IpAddr::V4(a) => {
            let labels: Vec<_> = a.octets().iter().map(u8::to_string).collect();
            (labels, "in-addr.arpa")
        }
        IpAddr::V6(a) => {
            let labels = (0..32)
                .map(|n| format!("{:x}", a.to_bits() >> (124 - 4 * n) & 15))
                .collect();
            (labels, "ip6.arpa")
        }
    };
    let bits = 128 / if address.is_ipv4() { 16 } else { 32 };
    labels.truncate(usize::from(length / bits));
    labels.reverse();
    labels.push(zone.to_owned());
    labels.join(".")
}

/// Splits `_dns-sd._udp.1.168.192.in-addr.arpa` before its numbers.
fn split_reverse_zone(name: &str) -> (&str, Option<&str>) {
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if !lower.ends_with(".in-addr.arpa") && !lower.ends_with(".ip6.arpa") {
        return (name, None);
    }
    // 32 nibbles and the zone's own three dots.
    name.rmatch_indices('.')
        .take(36)
        .map(|(at, _)| (&name[..at], &name[at + 1..]))
        .filter(|(_, zone)| parse_reverse(zone.strip_suffix('.').unwrap_or(zone)).is_some())
        .last()
        .map_or((name, None), |(head, zone)| (head, Some(zone)))
}

fn labels(
    keyed: &Pseudonyms,
    name: &str,
    done: &dyn Fn(&str) -> bool,
    replaced: &mut dyn FnMut(Replaced),
) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let stays = labels_that_stay(keyed, &parts);
    let mapped: Vec<String> = parts
        .iter()
        .zip(stays)
        .map(|(label, stays)| {
            if stays || done(label) {
                (*label).to_owned()
            } else {
                one_label(keyed, label, replaced)
            }
        })
        .collect();
    mapped.join(".")
}

/// Which labels are nobody's own.
fn labels_that_stay(keyed: &Pseudonyms, parts: &[&str]) -> Vec<bool> {
    let lower: Vec<String> = parts.iter().map(|p| p.to_lowercase()).collect();
    // A final dot leaves an empty label.
    let count =
        lower.len() - usize::from(lower.len() > 1 && lower.last().is_some_and(String::is_empty));
    let at = |from_end: usize| count.checked_sub(from_end).and_then(|i| lower.get(i));
    let last = at(1).map_or("", String::as_str);
    let mut public = if count >= 2 && vocabulary::is_top_level(last) {
        let second = at(2).map_or("", String::as_str);
        1 + usize::from(count >= 3 && last.len() == 2 && vocabulary::is_second_level(second))
    } else {
        usize::from(vocabulary::is_special_use(last))
    };
    // A duty says nothing only if something behind it says whose.
    let suffix = public;
    for n in count.saturating_sub(KEPT_LABELS)..count {
        if keyed.policy.keep_names.contains(&lower[n..count].join(".")) {
            public = public.max(count - n);
        }
    }
    lower
        .iter()
        .enumerate()
        .map(|(n, label)| {
            label.is_empty()
                || label == "*"
                || n >= count.saturating_sub(public)
                || n + 1 < count.saturating_sub(suffix) && vocabulary::is_duty(label)
                || vocabulary::is_service_label(label)
        })
        .collect()
}

/// The pseudonym of one label that does not stay.
pub(crate) fn one_label(
    keyed: &Pseudonyms,
    label: &str,
    replaced: &mut dyn FnMut(Replaced),
) -> String {
    let pseudonym = match dashed(label) {
        Some((before, address, after)) => {
            let mapped = keyed.address(address.into());
            replaced(Replaced::Address {
                real: address.into(),
                pseudonym: mapped,
            });
            let side = |text: &str| around_dashed(keyed, text);
            format!(
                "{}{}{}",
                side(before),
                mapped.to_string().replace('.', "-"),
                side(after)
            )
        }
        None => host(keyed, label),
    };
    // An address that stays leaves nothing private in its label.
    if pseudonym != label {
        replaced(Replaced::Label {
            real: label.to_owned(),
            pseudonym: pseudonym.clone(),
        });
    }
    pseudonym
}

fn host(keyed: &Pseudonyms, text: &str) -> String {
    format!(
        "{PREFIX}{}",
        digest_text(&keyed.labels, "label", &text.to_lowercase())
    )
}

/// What stands beside a dashed address: words such as `ip` or `dyn` stay.
fn around_dashed(keyed: &Pseudonyms, text: &str) -> String {
    let word = text.trim_matches('-');
    if word.is_empty() || vocabulary::is_host_prefix(&word.to_ascii_lowercase()) {
        text.to_owned()
    } else {
        text.replace(word, &host(keyed, word))
    }
}

/// Finds an address written with dashes (`ip-192-168-1-7`) in a label.
pub(crate) fn dashed(label: &str) -> Option<(&str, Ipv4Addr, &str)> {
    if label.len() > LONGEST_LABEL {
        return None;
    }
    let starts = label.char_indices().filter(|&(at, c)| {
        c.is_ascii_digit() && !label[..at].ends_with(|p: char| p.is_ascii_digit())
    });
    for (at, _) in starts {
        let rest = &label[at..];
        let mut octets = [0; 4];
        let mut length = 0;
        let mut parts = rest.splitn(5, '-');
        let complete = octets.iter_mut().enumerate().all(|(n, octet)| {
            let Some(part) = parts.next() else {
                return false;
            };
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            length += digits + usize::from(n > 0);
            let value = decimal(&part[..digits]);
            *octet = value.unwrap_or(0);
            value.is_some() && (n == 3 || digits == part.len())
        });
        let after = &rest[length.min(rest.len())..];
        let numbers_go_on =
            |side: Option<&str>| side.is_some_and(|s| s.starts_with(|c: char| c.is_ascii_digit()));
        let before = &label[..at];
        let number_before = before
            .strip_suffix('-')
            .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_digit()));
        if complete && !numbers_go_on(after.strip_prefix('-')) && !number_before {
            return Some((before, octets.into(), after));
        }
    }
    None
}

/// True if this is a label's pseudonym: `host-` and a digest.
pub(crate) fn is_pseudonym(label: &str) -> bool {
    label.strip_prefix(PREFIX).is_some_and(is_digest_text)
}

/// A decimal octet of one to three digits.
pub(crate) fn decimal(text: &str) -> Option<u8> {
    if (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

const PREFIX: &str = "host-";
/// Longer than any label or host name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 255;
/// Labels of a name in the policy.
const KEPT_LABELS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SanitizerKey;
    use crate::policy::Policy;

    fn keyed() -> Pseudonyms {
        Pseudonyms::new(&SanitizerKey::from_bytes([3; 32]), Policy::default())
    }

    fn of(name: &str) -> String {
        pseudonym(&keyed(), name, &|_| false, &mut |_| {})
    }

    #[test]
    fn names_share_their_parent_after_as_before() {
        assert!(of("mail.acme.com").starts_with("mail.host-"));
        assert!(of("mail.com").starts_with("host-") && of("mail").starts_with("host-"));
        let (a, c) = (of("a.b.acme.com"), of("c.b.acme.com"));
        assert_ne!(a, c);
        assert_eq!(a.split_once('.').unwrap().1, c.split_once('.').unwrap().1);
        assert!(a.ends_with(".com") && !a.contains("acme"));
        assert_eq!(of("ACME.com"), of("acme.com"));
    }

    #[test]
    fn what_is_nobodys_own_stays() {
        for name in [
            "localhost",
            "example.org",
            "lan",
            "_dns-sd._udp.local",
            "1.1.1.1.in-addr.arpa",
            "",
            ".",
        ] {
            assert_eq!(of(name), name);
        }
        assert!(of("router.smith.co.uk").ends_with(".co.uk"));
        assert!(!of("smith").contains("smith"));
        assert!(!of("com").contains("com"), "a host may be called com");
        assert!(!of("printer.smithfamily").contains("smithfamily"));
    }

    #[test]
    fn an_address_in_a_name_follows_the_address() {
        let keyed = keyed();
        let mapped = keyed.address("192.168.1.7".parse().unwrap()).to_string();
        let octets: Vec<_> = mapped.split('.').collect();
        assert_eq!(of("192.168.1.7"), mapped);
        assert_eq!(
            of("7.1.168.192.in-addr.arpa."),
            format!(
                "{}.{}.{}.{}.in-addr.arpa.",
                octets[3], octets[2], octets[1], octets[0]
            )
        );
        assert_eq!(
            of("1.168.192.in-addr.arpa"),
            format!("{}.{}.{}.in-addr.arpa", octets[2], octets[1], octets[0])
        );
        assert_eq!(
            of("ip-192-168-1-7.local"),
            format!("ip-{}.local", mapped.replace('.', "-"))
        );
        assert!(!of("anna-192-168-1-7.local").contains("anna"));
        assert!(
            of("lb._dns-sd._udp.1.168.192.in-addr.arpa")
                .ends_with(&format!("{}.in-addr.arpa", octets[0]))
        );
    }

    #[test]
    fn dates_and_longer_runs_are_no_dashed_address() {
        for label in ["2026-11-21-10", "1-2-3-4-5", "10-0-0", "10-0-0-256", "a"] {
            assert_eq!(dashed(label), None, "{label}");
        }
        assert_eq!(
            dashed("x10-0-0-5y"),
            Some(("x", Ipv4Addr::new(10, 0, 0, 5), "y"))
        );
    }
}
