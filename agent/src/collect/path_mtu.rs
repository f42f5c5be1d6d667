//! The largest packet that passes to a target in one piece (RFC 1191, RFC 8899: probing, not believing).

mod echo;
mod search;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::record::{Link, PathMtu};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use self::echo::{Echo, Heard};
use self::search::Search;
use super::{Seen, route};
use crate::clock;

/// Searches the paths to all targets, side by side; what is not found after `deadline` is told as far as it is known.
pub(crate) async fn collect(
    targets: &[IpAddr],
    links: &[Link],
    deadline: Duration,
) -> Seen<Vec<PathMtu>> {
    let until = Instant::now() + deadline;
    let mut seen = Seen {
        value: Vec::new(),
        gaps: Vec::new(),
    };
    if targets.len() > MAX_TARGETS {
        seen.gaps.push(format!(
            "{} more paths were left out",
            targets.len() - MAX_TARGETS
        ));
    }
    let searched = targets
        .iter()
        .take(MAX_TARGETS)
        .map(|target| search(*target, links, until));
    for (target, result) in targets.iter().zip(join_all(searched).await) {
        match result {
            Ok(found) => seen.value.extend(found.map(|found| found.path)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => seen.gaps.push(format!(
                "path to {target}: needs net.ipv4.ping_group_range to cover this process's group, or CAP_NET_RAW"
            )),
            Err(error) => seen.gaps.push(format!("path to {target}: {error}")),
        }
    }
    seen
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) path: PathMtu,
    /// Who reported which MTU of the next hop; at most 8.
    pub(crate) reporters: Vec<(IpAddr, u16)>,
}

/// Searches one path; none without a way to the target.
pub(crate) async fn find(
    target: IpAddr,
    links: &[Link],
    deadline: Duration,
) -> io::Result<Option<Found>> {
    search(target, links, Instant::now() + deadline).await
}

async fn search(target: IpAddr, links: &[Link], until: Instant) -> io::Result<Option<Found>> {
    // No way there is no path: the routes say so already.
    let Some(index) = route::outgoing(target).await.map_err(io::Error::other)? else {
        return Ok(None);
    };
    let Some(link) = links.iter().find(|l| l.index == index) else {
        return Ok(None);
    };
    let link_mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
    let floor = if target.is_ipv4() { FLOOR_V4 } else { FLOOR_V6 };
    let mut search = Search::new(floor, link_mtu);
    let mut probing = Probing {
        echo: Echo::open(target)?,
        next_number: 0,
        wait: FIRST_WAIT,
        reporters: Vec::new(),
    };
    loop {
        let sizes = search.next();
        if sizes.is_empty() || Instant::now() >= until {
            break;
        }
        probing.step(&sizes, &mut search, until).await?;
    }
    // A full queue loses large packets more often than small ones, but not always.
    if let Some(limit) = search.limit() {
        probing.step(&[limit; AGAIN], &mut search, until).await?;
        if search.largest_answered() >= Some(limit) {
            search.forget_losses();
        }
    }
    Ok(Some(Found {
        path: PathMtu {
            target,
            link_mtu,
            largest_answered: search.largest_answered(),
            smallest_lost: search.smallest_lost(),
            reported: search.reported(),
        },
        reporters: probing.reporters,
    }))
}

struct Probing {
    echo: Echo,
    next_number: u16,
    /// How long a reply is waited for.
    wait: Duration,
    reporters: Vec<(IpAddr, u16)>,
}

impl Probing {
    /// Sends each size up to [`TRIES`] times, until it is answered.
    async fn step(&mut self, sizes: &[u16], search: &mut Search, until: Instant) -> io::Result<()> {
        let mut open: BTreeMap<u16, u16> = BTreeMap::new();
        let mut unanswered = sizes.to_vec();
        let began = clock::since_boot();
        for _ in 0..TRIES {
            for size in &unanswered {
                let number = self.next_number;
                self.next_number = number.wrapping_add(1);
                open.insert(number, *size);
                // A size that the kernel itself refuses is lost, too.
                self.echo.send(number, *size).ok();
            }
            let next_try = until.min(Instant::now() + self.wait);
            while !unanswered.is_empty() {
                let Ok(heard) = timeout_at(next_try, self.echo.hear()).await else {
                    break;
                };
                match heard? {
                    Heard::Reply(number) => {
                        if let Some(size) = open.get(&number) {
                            search.answer(*size);
                            unanswered.retain(|s| s != size);
                        }
                        let rtt = clock::since_boot().0.saturating_sub(began.0);
                        self.wait = (rtt * 3).clamp(SHORTEST_WAIT, self.wait);
                    }
                    Heard::TooBig(from, mtu) => {
                        search.report(mtu);
                        let known = self.reporters.contains(&(from, mtu));
                        if !known && self.reporters.len() < MAX_REPORTERS {
                            self.reporters.push((from, mtu));
                        }
                    }
                    Heard::Noise => {}
                }
            }
        }
        // Time that ran out before the repeats says nothing about a size.
        if Instant::now() < until {
            unanswered.into_iter().for_each(|size| search.lose(size));
        }
        Ok(())
    }
}

const MAX_TARGETS: usize = 4;
const MAX_REPORTERS: usize = 8;
const TRIES: u32 = 3;
/// Every IPv4 host takes this much in one piece by custom (RFC 1191), every IPv6 link by law (RFC 8200).
const FLOOR_V4: u16 = 576;
const FLOOR_V6: u16 = 1280;
/// Packets of the size that seems too large which are sent once more, as often as any other.
const AGAIN: usize = 4;
const FIRST_WAIT: Duration = Duration::from_millis(400);
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
