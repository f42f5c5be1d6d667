//! TCP connects to many ports, a bounded number at once: open, closed, or nobody answers.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::AsFd as _;
use std::time::Duration;

use aizen_protocol::record::ConnectOutcome;
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::echo::Target;
use super::wait::{Stop, wait};
use crate::clock;

/// What to connect to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Targets and ports, in the order tried.
    pub to: Vec<(Target, u16)>,
    /// How long one connect may take.
    pub wait: Duration,
    /// Connects under way at once; at least one.
    pub at_once: usize,
    /// Ends the run, whatever is still to do.
    pub deadline: Option<Duration>,
}

/// How one connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Place in the plan.
    pub place: usize,
    /// How.
    pub outcome: ConnectOutcome,
    /// From SYN to the answer; none without one.
    pub rtt: Option<Duration>,
}

/// Runs a plan to its end, its deadline or `stop`; what was not finished by then is left out. Results come in the order
/// in which they end.
///
/// # Errors
/// No socket can be made, or none can be waited for.
pub fn run(plan: &Plan, stop: Stop<'_>) -> io::Result<Vec<Done>> {
    let began = clock::since_boot().0;
    let mut done = Vec::new();
    let mut under_way: VecDeque<Connecting> = VecDeque::new();
    let mut next = 0;
    loop {
        while under_way.len() < plan.at_once.max(1)
            && let Some((target, port)) = plan.to.get(next)
        {
            match Connecting::start(next, *target, *port)? {
                Ok(connecting) => under_way.push_back(connecting),
                Err(ended) => done.push(ended),
            }
            next += 1;
        }
        let now = clock::since_boot().0;
        // The oldest stands first: all wait equally long.
        while under_way
            .front()
            .is_some_and(|c| now >= c.began + plan.wait)
        {
            done.extend(under_way.pop_front().map(|c| Done {
                place: c.place,
                outcome: ConnectOutcome::Timeout,
                rtt: None,
            }));
        }
        let Some(oldest) = under_way.front() else {
            if next >= plan.to.len() {
                return Ok(done);
            }
            continue;
        };
        let mut until = oldest.began + plan.wait;
        if let Some(deadline) = plan.deadline {
            if now >= began + deadline {
                return Ok(done);
            }
            until = until.min(began + deadline);
        }
        let sockets: Vec<_> = under_way
            .iter()
            .map(|c| (c.socket.as_fd(), PollFlags::POLLOUT))
            .collect();
        let woken = wait(&sockets, stop, until.saturating_sub(now))?;
        if woken.stop {
            return Ok(done);
        }
        let now = clock::since_boot().0;
        let mut ready = woken.ready.into_iter();
        under_way.retain(|connecting| {
            let ended = ready.next().unwrap_or(false);
            if ended {
                done.push(connecting.end(now));
            }
            !ended
        });
    }
}

/// One connect under way.
struct Connecting {
    place: usize,
    socket: Socket,
    began: Duration,
}

impl Connecting {
    /// Starts one; the inner error is a connect that ended at once.
    fn start(place: usize, target: Target, port: u16) -> io::Result<Result<Self, Done>> {
        let address = address(target, port);
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        let connecting = Self {
            place,
            socket,
            began: clock::since_boot().0,
        };
        match connecting.socket.connect(&address.into()) {
            Err(error) if is_under_way(&error) => Ok(Ok(connecting)),
            result => Ok(Err(connecting.ended(result.err(), clock::since_boot().0))),
        }
    }

    fn end(&self, now: Duration) -> Done {
        self.ended(self.socket.take_error().unwrap_or_else(Some), now)
    }

    fn ended(&self, error: Option<io::Error>, now: Duration) -> Done {
        let outcome = outcome(error.as_ref());
        let answered = matches!(outcome, ConnectOutcome::Connected | ConnectOutcome::Refused);
        Done {
            place: self.place,
            outcome,
            rtt: answered.then(|| now.saturating_sub(self.began)),
        }
    }
}

/// What the error of a connect says (tcp(7), ip(7)).
fn outcome(error: Option<&io::Error>) -> ConnectOutcome {
    match error.map(io::Error::kind) {
        None => ConnectOutcome::Connected,
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
            ConnectOutcome::Refused
        }
        Some(io::ErrorKind::TimedOut) => ConnectOutcome::Timeout,
        Some(_) => ConnectOutcome::Unreachable,
    }
}

pub(super) fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS) || error.kind() == io::ErrorKind::WouldBlock
}

pub(super) fn address(target: Target, port: u16) -> SocketAddr {
    match SocketAddr::new(target.address, port) {
        SocketAddr::V6(a) => {
            SocketAddrV6::new(*a.ip(), port, 0, target.link.unwrap_or_default()).into()
        }
        v4 @ SocketAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn plan(ports: &[u16], at_once: usize) -> Plan {
        let target = Target {
            address: "127.0.0.1".parse().unwrap(),
            link: None,
        };
        Plan {
            to: ports.iter().map(|port| (target, *port)).collect(),
            wait: Duration::from_secs(20),
            at_once,
            deadline: None,
        }
    }

    #[test]
    fn an_open_port_connects_and_a_closed_one_refuses() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = [&open, &closed].map(|l| l.local_addr().unwrap().port());
        drop(closed);
        let mut done = run(&plan(&ports, 8), None).unwrap();
        done.sort_by_key(|d| d.place);
        assert_eq!(
            done.iter().map(|d| d.outcome).collect::<Vec<_>>(),
            [ConnectOutcome::Connected, ConnectOutcome::Refused]
        );
        assert!(done.iter().all(|d| d.rtt.is_some()));
    }

    #[test]
    fn more_ports_than_places_are_all_tried() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = open.local_addr().unwrap().port();
        let done = run(&plan(&[port; 9], 2), None).unwrap();
        assert_eq!(done.len(), 9);
    }

    #[test]
    fn a_passed_deadline_leaves_out_what_is_not_finished() {
        // TEST-NET-1 answers nobody; without any route the kernel says so at once.
        let mut plan = plan(&[9], 1);
        plan.to[0].0.address = "192.0.2.1".parse().unwrap();
        plan.deadline = Some(Duration::ZERO);
        let done = run(&plan, None).unwrap();
        assert!(
            done.iter()
                .all(|d| d.outcome == ConnectOutcome::Unreachable)
        );
    }
}
