//! Tables of nftables in the one form in which they are compared.

use aizen_protocol::package::manifest::{NftOperation, NftTable, Operation};

use super::{Exact, GrantError};

/// Longest name that is taken; the kernel's bound is 255 (`NFT_NAME_MAXLEN`).
const NAME: usize = 64;

pub(super) fn exact(operation: &NftOperation) -> Result<Exact, GrantError> {
    let (table, replace) = match operation {
        NftOperation::ReplaceTable(table) => (table, true),
        NftOperation::DeleteTable(table) => (table, false),
    };
    let family = table.family.as_str();
    let name = table.name.as_str();
    // Names that its scanner reads without quotes.
    let plain = (1..=NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || !matches!(family, "ip" | "ip6" | "inet" | "arp" | "bridge" | "netdev") {
        let shown = format!("{family} {name}");
        return Err(GrantError::NotATable(shown.chars().take(80).collect()));
    }
    Ok(Exact::Nft {
        replace,
        table: format!("{family} {name}"),
    })
}

pub(super) fn operation(replace: bool, table: &str) -> Operation {
    let (family, name) = table.split_once(' ').unwrap_or(("", table));
    let table = NftTable {
        family: family.to_owned(),
        name: name.to_owned(),
    };
    Operation::Nft(if replace {
        NftOperation::ReplaceTable(table)
    } else {
        NftOperation::DeleteTable(table)
    })
}
