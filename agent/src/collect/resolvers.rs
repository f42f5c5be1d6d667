//! Which resolvers the programs of this device ask: `/etc/resolv.conf` (resolv.conf(5)).

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use aizen_protocol::private::Name;
use aizen_protocol::record::Resolvers;

use super::{Seen, file};

/// Reads the file. `alternates` are the resolvers that the operator named in the agent's own configuration.
pub(crate) fn collect(root: &Path, alternates: &[IpAddr]) -> Seen<Resolvers> {
    let path = root.join(PATH);
    let regular = fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_file());
    told(read(&path), regular, alternates)
}

/// The same without waiting for anything; none if it must be waited for.
pub(crate) fn at_hand(root: &Path, alternates: &[IpAddr]) -> Option<Seen<Resolvers>> {
    let (bytes, regular) = file::at_hand(&root.join(PATH), MAX_BYTES)?;
    Some(told(Ok(bytes), regular, alternates))
}

fn told(read: io::Result<Vec<u8>>, regular: bool, alternates: &[IpAddr]) -> Seen<Resolvers> {
    let mut seen = match read {
        Ok(bytes) => parse(&bytes),
        Err(error) => Seen {
            value: Resolvers::default(),
            gaps: vec![format!("/etc/resolv.conf can't be read: {error}")],
        },
    };
    seen.value.alternates = alternates.iter().copied().take(MAX_SERVERS).collect();
    seen.value.regular_file = regular;
    seen
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads what the C library would; a line that it would pass over is passed over, and named if it was meant to be a
/// name server.
pub(crate) fn parse(bytes: &[u8]) -> Seen<Resolvers> {
    let mut value = Resolvers::default();
    let mut gaps = Vec::new();
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        // Comment signs count in the first column only.
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => match words.next().map(str::parse::<IpAddr>) {
                Some(Ok(address)) if value.configured.len() < MAX_SERVERS => {
                    value.configured.push(address)
                }
                Some(Ok(_)) => {
                    gaps.push(format!("line {} has one name server too many", number + 1))
                }
                Some(Err(_)) | None => gaps.push(format!(
                    "line {} names no name server by an address",
                    number + 1
                )),
            },
            // The last of them wins.
            Some("search" | "domain") => {
                value.search = words
                    .filter(|w| is_name(w))
                    .take(MAX_SEARCH)
                    .map(|w| Name(w.to_owned()))
                    .collect();
            }
            _ => {}
        }
    }
    gaps.truncate(MAX_SERVERS);
    Seen { value, gaps }
}

fn is_name(word: &str) -> bool {
    word.len() <= 255
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

const MAX_BYTES: u64 = 64 << 10;
const PATH: &str = "etc/resolv.conf";
/// The C library asks 3; some files name more for other readers.
const MAX_SERVERS: usize = 8;
/// glibc's bound before 2.26 was 6; since then it has none.
const MAX_SEARCH: usize = 32;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_keep_their_order_and_the_last_search_line_wins() {
        let seen = parse(
            b"# nameserver 192.0.2.9\nnameserver 192.0.2.2 # second word\n  nameserver\t2001:db8::1\ndomain a.example\nsearch b.example c.example\noptions ndots:2\n",
        );
        let want: Vec<IpAddr> = vec!["192.0.2.2".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(seen.value.configured, want);
        assert_eq!(
            seen.value.search,
            [Name("b.example".to_owned()), Name("c.example".to_owned())]
        );
        assert!(seen.gaps.is_empty());
    }

    #[test]
    fn a_name_server_that_is_no_address_is_a_gap_and_hides_no_other() {
        let seen = parse(
            b"nameserver dns.example\nnameserver\nnameserver fe80::1%eth0\nnameserver 192.0.2.2",
        );
        assert_eq!(seen.value.configured.len(), 1);
        assert_eq!(seen.gaps.len(), 3);
    }

    #[test]
    fn a_link_is_not_a_regular_file_and_a_missing_file_is_a_gap() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(root.path(), &[]).gaps.len(), 1);
        let etc = root.path().join("etc");
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("stub"), "nameserver 127.0.0.53\n").unwrap();
        symlink("stub", etc.join("resolv.conf")).unwrap();
        let alternates = ["192.0.2.9".parse().unwrap()];
        let seen = collect(root.path(), &alternates);
        if let Some(same) = at_hand(root.path(), &alternates) {
            assert_eq!(same.value, seen.value);
        }
        assert!(!seen.value.regular_file && seen.gaps.is_empty());
        assert_eq!(
            (seen.value.configured.len(), seen.value.alternates.len()),
            (1, 1)
        );
        fs::remove_file(etc.join("resolv.conf")).unwrap();
        fs::write(etc.join("resolv.conf"), "").unwrap();
        assert!(collect(root.path(), &[]).value.regular_file);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let seen = parse(&bytes);
            prop_assert!(seen.value.configured.len() <= MAX_SERVERS && seen.value.search.len() <= MAX_SEARCH);
            prop_assert!(seen.gaps.len() <= MAX_SERVERS);
        }

        #[test]
        fn every_address_that_is_written_is_read(addresses in prop::collection::vec(any::<IpAddr>(), 0..8)) {
            let text: String = addresses.iter().map(|a| format!("nameserver {a}\r\n")).collect();
            prop_assert_eq!(parse(text.as_bytes()).value.configured, addresses);
        }
    }
}
