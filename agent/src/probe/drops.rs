//! How many packets the kernel threw away because a socket of ours was full: column `drops` of
//! `/proc/net/{icmp,raw}` and their IPv6 twins (`ping_v4_format_sock`, net/ipv4/ping.c).
//!
//! `SO_RXQ_OVFL` says the same with each packet, but nothing after the last one.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

/// The drop counter of the socket with this inode, from the tables of this thread's network namespace.
pub(super) fn of(table: &str, inode: u64) -> Option<u32> {
    let mut text = String::new();
    File::open(format!("/proc/thread-self/net/{table}"))
        .ok()?
        .take(MOST)
        .read_to_string(&mut text)
        .ok()?;
    find(&text, inode)
}

/// The inode of a socket.
pub(super) fn inode(socket: impl AsFd) -> Option<u64> {
    Some(rustix::fs::fstat(socket).ok()?.st_ino)
}

pub(crate) fn find(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // sl local remote st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops
        (words.nth(9)?.parse() == Ok(inode)).then(|| words.last()?.parse().ok())?
    })
}

const MOST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
    1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 56789 2 0000000000000000 1744
    1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 56790 2 0000000000000000 0
";

    #[test]
    fn the_counter_of_the_right_socket_is_read() {
        assert_eq!(find(TABLE, 56789), Some(1744));
        assert_eq!(find(TABLE, 56790), Some(0));
        assert_eq!(find(TABLE, 1), None);
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(text in ".{0,300}", inode: u64) {
            find(&text, inode);
            find(&format!("head\n{text}"), inode);
        }
    }
}
