//! Captive portals, real and imagined.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use aizen_agent::collect::{Settings, portal::Known};
use aizen_protocol::record::Portal;

use crate::daemon::unbound;
use crate::netns::{Netns, device_and_gateway, root};
use crate::secure::listen;
use crate::{see, settings};

/// Answers each request at 192.0.2.1 with these bytes.
fn serve(gateway: &Netns, port: u16, answer: Vec<u8>) {
    listen(gateway, &format!("192.0.2.1:{port}"), move |mut tcp| {
        let length = tcp.read(&mut [0; 4096]).unwrap_or_default();
        assert!(length > 0);
        tcp.write_all(&answer).ok();
    });
}

fn asked(device: &Netns, url: &str, body: Option<&str>) -> Portal {
    let root = root("nameserver 192.0.2.1\n");
    let settings = Settings {
        portal: Some(Known {
            url: url.parse().unwrap(),
            body: body.map(str::to_owned),
        }),
        ..settings(root.path())
    };
    see(device, settings).portal.unwrap()
}

#[test]
fn only_the_known_answer_is_no_portal() {
    let (device, gateway) = device_and_gateway();
    let _unbound = unbound(&gateway, "local-data: \"check.example. 60 IN A 192.0.2.1\"");
    serve(&gateway, 80, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    let well = asked(&device, "http://check.example/generate_204", None);
    assert!(well.expected && well.status == Some(204), "{well:?}");
    let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://login.portal.example/?x=1\r\nContent-Length: 0\r\n\r\n";
    serve(&gateway, 81, redirect.to_vec());
    let caught = asked(&device, "http://check.example:81/generate_204", None);
    assert_eq!((caught.expected, caught.status), (false, Some(302)));
    assert_eq!(caught.redirect.unwrap().0, "login.portal.example");
    serve(
        &gateway,
        82,
        [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 100_000]].concat(),
    );
    let foreign = asked(&device, "http://check.example:82/", Some("success"));
    assert_eq!(
        (foreign.expected, foreign.status, foreign.redirect),
        (false, Some(200), None)
    );
}

#[test]
fn a_server_that_is_dead_silent_or_mad_is_no_answer_and_no_portal() {
    let (device, gateway) = device_and_gateway();
    serve(&gateway, 80, vec![0xff; 100_000]);
    listen(&gateway, "192.0.2.1:81", |tcp| {
        std::thread::sleep(Duration::from_secs(10));
        drop(tcp);
    });
    for url in [
        "http://192.0.2.1/",
        "http://192.0.2.1:81/",
        "http://192.0.2.1:82/",
        "http://nowhere.example/",
    ] {
        let none = asked(&device, url, None);
        assert!(
            none.status.is_none() && !none.expected && none.error.is_some(),
            "{url}: {none:?}"
        );
    }
}

#[test]
fn without_a_question_nothing_is_asked_or_told() {
    let (device, _gateway) = device_and_gateway();
    let root = root("");
    let pass = see(&device, settings(root.path()));
    assert!(pass.portal.is_none() && pass.gap("portal").is_none());
    assert!(pass.certificates.is_empty() && pass.gap("certificates").is_none());
}
