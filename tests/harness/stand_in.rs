//! Servers that answer as a sick one would: late, or with a wrong clock. Each is a real program on a real socket.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::lab::OTHER_NAME;
use crate::netns::Netns;
use crate::program::Program;
use crate::shell;

/// Answers every question after 450 ms, each in a thread of its own; it knows the IPv4 address of one name.
const SLOW_DNS: &str = "
import socket, sys, threading, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind((sys.argv[1], 53))
known = b''.join(bytes([len(label)]) + label.encode() for label in sys.argv[2].split('.')) + b'\\0'
def answer(question, peer):
    time.sleep(0.45)
    end = question.index(0, 12) + 5
    name, kind = question[12:end - 4], question[end - 4:end - 2]
    found = name == known and kind == b'\\0\\1'
    rcode = b'\\x81\\x80' if name in (known, b'\\0') else b'\\x81\\x83'
    head = question[:2] + rcode + b'\\0\\1\\0' + bytes([found]) + b'\\0\\0\\0\\0' + question[12:end]
    record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + bytes([198, 51, 100, 80])
    server.sendto(head + (record if found else b''), peer)
while True:
    threading.Thread(target=answer, args=server.recvfrom(4096), daemon=True).start()
";

/// An SNTP server (RFC 4330, stratum 2) whose clock is ahead by the given seconds.
const AHEAD_NTP: &str = "
import socket, struct, sys, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind((sys.argv[1], 123))
while True:
    question, peer = server.recvfrom(512)
    now = time.time() + 2208988800 + float(sys.argv[2])
    stamp = struct.pack('!II', int(now), int((now % 1) * 2**32))
    server.sendto(struct.pack('!BBbb', 0x24, 2, 6, -20) + b'\\0' * 8 + b'GPS\\0' + stamp + question[40:48] + stamp + stamp, peer)
";

/// A web server that gives zeros without end and takes what it is sent.
const WEB: &str = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', str(1 << 40)); self.end_headers()
        block = bytes(1 << 16)
        while True:
            self.wfile.write(block)
    def do_POST(self):
        left = int(self.headers['Content-Length'])
        while left > 0:
            came = self.rfile.read1(min(left, 1 << 16))
            if not came:
                return
            left -= len(came)
        self.send_response(204); self.end_headers()
http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler).serve_forever()
";

/// Starts a web server on port 8080 that moves as much as the line takes.
///
/// # Errors
/// If it does not listen within ten seconds.
pub fn web_server(netns: &Netns, address: &str, folder: &Path) -> Result<Program> {
    start(
        "web server",
        netns,
        &[WEB, address],
        "tcp",
        ":1F90 ",
        folder,
    )
}

/// Starts a resolver that answers late.
///
/// # Errors
/// If it does not listen within ten seconds.
pub fn slow_resolver(netns: &Netns, address: &str, folder: &Path) -> Result<Program> {
    start(
        "slow resolver",
        netns,
        &[SLOW_DNS, address, OTHER_NAME],
        "udp",
        ":0035 ",
        folder,
    )
}

/// Starts a time server that is ahead by so many seconds.
///
/// # Errors
/// If it does not listen within ten seconds.
pub fn time_server(netns: &Netns, address: &str, ahead_s: i32, folder: &Path) -> Result<Program> {
    start(
        "time server",
        netns,
        &[AHEAD_NTP, address, &ahead_s.to_string()],
        "udp",
        ":007B ",
        folder,
    )
}

fn start(
    name: &'static str,
    netns: &Netns,
    words: &[&str],
    protocol: &str,
    port: &str,
    folder: &Path,
) -> Result<Program> {
    let mut command = netns.command("/usr/bin/python3");
    command.arg("-c").args(words);
    let mut program = Program::start(name, &mut command, &folder.join("stand-in.log"))?;
    let table = format!("/proc/net/{protocol}");
    let listens =
        || shell::run(netns.command("cat").arg(&table)).is_ok_and(|table| table.contains(port));
    program.wait_ready(Duration::from_secs(10), listens)?;
    Ok(program)
}
