//! What it costs to look at the kernel's tables, beside a bare dump of the same tables: both in this process and in
//! its network namespace, taking turns.

use std::io::{self, Write as _};

use aizen_agent::collect::{Collector, Settings};
use aizen_protocol::record::Trigger;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::time::{ClockId, clock_gettime};

/// Turns of each; an odd number has a median.
const TURNS: usize = 31;

/// Prints medians of the processor time of all threads, in microseconds: of the bare dump, of a glance at the tables,
/// of all that is read and not tried, and of a whole round with its probes, null without rounds.
pub(crate) fn run(rounds: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let [mut bare, mut tables, mut local, mut round] = [const { Vec::new() }; 4];
    let mut collector = Collector::new(Settings::default());
    // The first round runs what is rare, and the first glance subscribes.
    if rounds > 0 {
        drop(runtime.block_on(collector.round(Trigger::Tick, 0)));
    }
    drop(runtime.block_on(collector.glance(Trigger::Event, 0)));
    for _ in 0..TURNS {
        let before = processor_us()?;
        dump()?;
        let between = processor_us()?;
        drop(runtime.block_on(collector.glance(Trigger::Event, 0)));
        let after = processor_us()?;
        drop(runtime.block_on(collector.look()));
        bare.push(between - before);
        tables.push(after - between);
        local.push(processor_us()? - after);
    }
    for _ in 0..rounds {
        let before = processor_us()?;
        drop(runtime.block_on(collector.round(Trigger::Tick, 0)));
        round.push(processor_us()? - before);
    }
    let round = median(round).map_or("null".to_owned(), |us| us.to_string());
    writeln!(
        io::stdout(),
        "{{\"bare_us\":{},\"tables_us\":{},\"local_us\":{},\"round_us\":{round}}}",
        median(bare).unwrap_or_default(),
        median(tables).unwrap_or_default(),
        median(local).unwrap_or_default(),
    )
}

/// All datagrams of each dump, through one socket; nothing is read of them but where they end.
fn dump() -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut datagram = Vec::with_capacity(64 << 10);
    for &(kind, header) in DUMPS {
        let length = u32::try_from(16 + header).unwrap_or(u32::MAX);
        let mut question = length.to_ne_bytes().to_vec();
        question.extend(kind.to_ne_bytes());
        question.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        question.resize(16 + header, 0);
        socket.send_to(&question, &SocketAddr::new(0, 0), 0)?;
        loop {
            datagram.clear();
            socket.recv_from(&mut datagram, 0)?;
            if ends(&datagram) {
                break;
            }
        }
    }
    Ok(())
}

fn ends(mut datagram: &[u8]) -> bool {
    while let Some(&[l0, l1, l2, l3, t0, t1]) = datagram.first_chunk() {
        if [NLMSG_DONE, NLMSG_ERROR].contains(&u16::from_ne_bytes([t0, t1])) {
            return true;
        }
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    false
}

fn processor_us() -> io::Result<i64> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000)
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// `RTM_GET…` of links, addresses, routes, rules, neighbour tables and queueing disciplines, and the bytes of each
/// kind's fixed header (rtnetlink(7)).
const DUMPS: &[(u16, usize)] = &[(18, 16), (22, 8), (26, 12), (34, 12), (66, 4), (38, 20)];
