//! Names that nobody registered, to catch resolvers that answer all the same.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::clock::BootTime;

/// A zone of the IANA (RFC 2606) that is signed, and answers for no name by a wildcard.
pub(crate) const WITHOUT_WILDCARD: &str = "example.com";

/// Where to look for names that don't exist: the registrable part of the operator's first name. `invalid.` (RFC 6761)
/// would be answered by the resolver itself, so that rewriting further up went unseen.
pub(crate) fn zone(name: Option<&str>) -> String {
    let name = name.unwrap_or_default().trim_end_matches('.');
    let labels: Vec<&str> = name.split('.').collect();
    let last = match labels[..] {
        [.., second, top] if top.len() == 2 && second.len() <= 3 => 3,
        [.., _, _] => 2,
        _ => return WITHOUT_WILDCARD.to_owned(),
    };
    labels[labels.len().saturating_sub(last)..].join(".")
}

/// Sixteen letters below `zone`, drawn by each process anew and changed each hour: resolvers remember that a name does
/// not exist (RFC 2308), so that the zone's own servers are not asked in every round.
pub(crate) fn name(now: BootTime, zone: &str) -> String {
    static DRAWN: OnceLock<[u8; 16]> = OnceLock::new();
    let drawn = DRAWN.get_or_init(|| {
        let mut drawn = [0; 16];
        // Without random numbers the hour alone still changes the name.
        getrandom::fill(&mut drawn).ok();
        drawn
    });
    let hour = now.0.as_secs() / 3600;
    let digest = Sha256::new()
        .chain_update(drawn)
        .chain_update(hour.to_be_bytes())
        .finalize();
    let letters: String = digest
        .iter()
        .take(16)
        .map(|b| char::from(b'a' + b % 26))
        .collect();
    format!("{letters}.{zone}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_zone_is_the_registrable_part_of_the_first_name() {
        for (name, expected) in [
            (Some("www.shop.example.org"), "example.org"),
            (Some("example.org."), "example.org"),
            (Some("www.shop.co.uk"), "shop.co.uk"),
            (Some("co.uk"), "co.uk"),
            (Some("router"), WITHOUT_WILDCARD),
            (Some("."), WITHOUT_WILDCARD),
            (None, WITHOUT_WILDCARD),
        ] {
            assert_eq!(zone(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_name_lasts_for_an_hour() {
        let at = |seconds| name(BootTime(Duration::from_secs(seconds)), "example.org");
        assert_eq!(at(3600), at(7199));
        assert_ne!(at(7199), at(7200));
        let (label, zone) = at(0)
            .split_once('.')
            .map(|(l, z)| (l.to_owned(), z.to_owned()))
            .unwrap();
        assert!(label.len() == 16 && label.bytes().all(|b| b.is_ascii_lowercase()));
        assert_eq!(zone, "example.org");
    }
}
