//! The network: a script has none, whichever namespace it sees.

use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use aizen_sandbox::Network;
use libc::EPERM;

use crate::bed::{errno, profile, run, said, sh, succeeds};

#[test]
fn no_socket_but_unix_can_be_made() {
    for family in [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_PACKET,
        libc::AF_NETLINK,
        libc::AF_VSOCK,
        libc::AF_ALG,
        libc::AF_BLUETOOTH,
        libc::AF_RDS,
        libc::AF_TIPC,
        libc::AF_XDP,
    ] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW] {
            let arguments = format!("{family}, {kind}, 0");
            assert_eq!(errno(libc::SYS_socket, &arguments), EPERM, "{arguments}");
        }
    }
    assert_eq!(errno(libc::SYS_socket, "1, 1, 0"), 0);
}

#[test]
fn an_internet_socket_does_not_pass_as_a_unix_one() {
    assert_eq!(errno(libc::SYS_socket, "2 + (1 << 32), 1, 0"), EPERM);
}

#[test]
fn routes_and_links_can_not_be_changed_in_either_namespace() {
    for network in [Network::Empty, Network::Host] {
        let mut script = profile(
            "command -v ip >/dev/null || echo no ip
             for c in 'link set lo down' 'route add 192.0.2.0/24 dev lo' 'addr add 192.0.2.1/32 dev lo'; do
               ip $c 2>/dev/null && echo changed; done; echo done",
        );
        script.network = network;
        assert_eq!(succeeds(script), "done");
    }
}

#[test]
fn the_empty_network_has_a_loopback_that_is_down_and_nothing_else() {
    let links = sh("tail -n +3 /proc/self/net/dev | cut -d: -f1; cat /proc/self/net/route | wc -l");
    let words: Vec<_> = links.split_whitespace().collect();
    assert_eq!(words.first(), Some(&"lo"), "{links}");
    assert!(!words.contains(&"eth0"), "{links}");
}

#[test]
fn the_hosts_network_can_be_read_when_it_is_asked_for() {
    let here = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = |network| {
        let mut script = profile("readlink /proc/self/ns/net");
        script.network = network;
        succeeds(script)
    };
    assert_eq!(inside(Network::Host), here.display().to_string());
    assert_ne!(inside(Network::Empty), here.display().to_string());
}

#[test]
fn abstract_sockets_of_the_host_can_not_be_reached() {
    let name = format!("aizen-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let mut script = profile(&format!(
        "exec perl -e 'socket(S, 1, 1, 0) or die; connect(S, pack(\"Sa*\", 1, \"\\0{name}\")) ? print 0 : print $! + 0'"
    ));
    script.network = Network::Host;
    assert_eq!(succeeds(script), EPERM.to_string());
}

#[test]
fn the_broker_is_descriptor_three_and_all_that_a_script_can_talk_to() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut script = profile("echo asked >&3; exec 3>&-; echo said");
    script.broker = Some(theirs.into());
    assert_eq!(succeeds(script), "said");
    let mut heard = String::new();
    ours.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "asked\n");
}

#[test]
fn without_a_broker_there_is_no_descriptor_three() {
    let finished = run(profile("(echo asked >&3) && echo wrote; echo done"));
    assert!(!said(&finished).contains("wrote"));
}

#[test]
fn descriptors_can_be_passed_to_the_broker() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // What `change` does: a fresh pair, one end of it sent over descriptor 3.
    let mut script = profile(
        r#"exec perl -e 'use Socket; socketpair(my $a, my $b, 1, 1, 0) or die;
            my $cmsg = pack("QLLL", 20, 1, 1, fileno($b)) . "\0" x 4;
            my $byte = "x"; my $iov = pack("PQ", $byte, 1);
            my $msg = pack("QLx4PQPQLx4", 0, 0, $iov, 1, $cmsg, 24, 0);
            my $r = syscall(46, 3, $msg, 0); $r == 1 or die "sendmsg $r $!";
            close $b; print scalar <$a>'"#,
    );
    script.broker = Some(theirs.into());
    let broker = std::thread::spawn(move || {
        let mut byte = [0; 1];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut into = [std::io::IoSliceMut::new(&mut byte)];
        let flags = rustix::net::RecvFlags::empty();
        rustix::net::recvmsg(&ours, &mut into, &mut control, flags).unwrap();
        let passed = control.drain().find_map(|part| match part {
            rustix::net::RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        rustix::io::write(passed.unwrap(), b"granted\n").unwrap();
    });
    assert_eq!(succeeds(script), "granted");
    broker.join().unwrap();
}
