//! Measured, not judged: `cargo nextest run -p aizen-sanitizer --run-ignored only --no-capture throughput`.

use std::time::Instant;

use crate::{sanitizer, text};

#[test]
#[expect(clippy::print_stdout, reason = "a measurement is there to be read")]
#[ignore = "prints a figure; worth something in a release build only"]
fn throughput() {
    let mut log = String::new();
    for n in 0..60_000_u32 {
        let line = match n % 6 {
            0 => format!(
                "Nov 21 14:{:02}:{:02} gw dnsmasq-dhcp[812]: DHCPACK(br-lan) 192.168.1.{} a4:5e:60:c1:02:{:02x} host{}\n",
                n / 60 % 60,
                n % 60,
                n % 250,
                n % 256,
                n % 50
            ),
            1 => format!(
                "Nov 21 14:{:02}:{:02} gw kernel: [{n}.123456] eth0: link becomes ready, speed 1000 full duplex\n",
                n / 60 % 60,
                n % 60
            ),
            2 => format!(
                "Nov 21 14:{:02}:{:02} gw systemd[1]: Started session {n} of user root.\n",
                n / 60 % 60,
                n % 60
            ),
            3 => format!(
                "Nov 21 14:{:02}:{:02} gw sshd[{n}]: Failed password for root from 203.0.113.{} port {} ssh2\n",
                n / 60 % 60,
                n % 60,
                n % 250,
                1024 + n % 60000
            ),
            4 => format!(
                "rx_bytes={} tx_bytes={} errors=0 dropped={} carrier=1 mtu=1500 qlen=1000 state=UP\n",
                u64::from(n) * 7919,
                n * 3,
                n % 5
            ),
            _ => format!(
                "query[A] www{}.example.org from 192.168.1.{} forwarded to 8.8.8.8 took {} us\n",
                n % 40,
                n % 250,
                n % 9000
            ),
        };
        log.push_str(&line);
    }
    let mut s = sanitizer();
    text(&mut s, &log[..100_000]);
    for _ in 0..3 {
        let start = Instant::now();
        let out = text(&mut s, &log);
        let seconds = start.elapsed().as_secs_f64();
        let rate = log.len() as f64 / 1e6 / seconds;
        println!(
            "{:.1} MB in {seconds:.2} s: {rate:.0} MB/s, {} bytes out",
            log.len() as f64 / 1e6,
            out.len()
        );
    }
}

#[test]
fn no_input_is_worse_than_linear() {
    // Shapes that make a search start over: long words, dots, colons, half secrets, unclosed quotes.
    for piece in [
        "a.",
        "a-",
        "1.",
        "1:",
        "::",
        "aa:",
        "a@",
        "%3A",
        "password=",
        "\"",
        "[",
        "-----BEGIN PRIVATE KEY-----",
        "0",
        "x:y@",
        "option key ",
        "1-",
        "user ",
        "ff",
        "é",
        "10.0.0.",
        "secret secret ",
    ] {
        let time = |bytes: usize| {
            let input = piece.repeat(bytes / piece.len());
            let mut s = sanitizer();
            (0..3)
                .map(|_| {
                    let start = Instant::now();
                    text(&mut s, &input);
                    start.elapsed()
                })
                .min()
                .unwrap()
        };
        time(1000);
        let (small, large) = (time(2_000), time(16_000));
        // Eight times the input; quadratic would be sixty-four times the time.
        assert!(
            large < small * 30 + std::time::Duration::from_millis(20),
            "{piece:?}: {small:?} then {large:?}"
        );
    }
}
