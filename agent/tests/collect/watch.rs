//! Notices of the kernel: how soon they are heard, and what happens when there are too many.

use std::time::{Duration, Instant};

use aizen_agent::collect::{Changed, NetEvent, watch};
use tokio::sync::mpsc;

use crate::netns::{Netns, device_and_gateway, root};
use crate::{see, settings};

/// How long after `act` a listener in the device's namespace hears of it, and what.
fn heard_after(device: &Netns, act: impl FnOnce()) -> (Duration, NetEvent) {
    let (tx, mut rx) = mpsc::channel(8);
    let (ready_tx, ready_rx) = std::sync::mpsc::sync_channel(1);
    let listener = device.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let watching = watch(tx);
            tokio::pin!(watching);
            // One poll subscribes; what happens after it is heard.
            assert!(futures_util::poll!(watching.as_mut()).is_pending());
            ready_tx.send(()).unwrap();
            let heard = async {
                let event = rx.recv().await.unwrap();
                (Instant::now(), event)
            };
            tokio::select! {
                ended = &mut watching => panic!("{ended:?}"),
                heard = heard => heard,
            }
        })
    });
    ready_rx.recv().unwrap();
    act();
    // Not the time of the program that acts.
    let acted = Instant::now();
    let (heard, event) = listener.join().unwrap();
    (heard.saturating_duration_since(acted), event)
}

#[test]
fn a_link_that_is_set_down_is_an_event_within_a_second() {
    let (device, _gateway) = device_and_gateway();
    let (after, event) = heard_after(&device, || device.ip("link set wan down"));
    assert!(event.changed.contains(&Changed::Links), "{event:?}");
    assert!(after < Duration::from_secs(1), "{after:?}");
}

#[test]
fn a_carrier_that_is_lost_is_an_event_as_soon_as_the_kernel_tells() {
    let (device, gateway) = device_and_gateway();
    let (after, event) = heard_after(&device, || gateway.ip("link set isp down"));
    assert!(event.changed.contains(&Changed::Links), "{event:?}");
    // The kernel itself holds carrier changes back for up to 1 s (net/core/link_watch.c).
    assert!(after < Duration::from_secs(2), "{after:?}");
    let root = root("");
    let wan = see(&device, settings(root.path()))
        .links
        .into_iter()
        .find(|l| l.name == "wan")
        .unwrap();
    assert_eq!((wan.admin_up, wan.carrier), (true, Some(false)));
    assert!(wan.carrier_changes.unwrap() > 1);
}

#[test]
fn notices_that_the_kernel_had_to_drop_are_reported_as_anything_and_later_ones_are_heard() {
    let (device, _gateway) = device_and_gateway();
    let (tx, mut rx) = mpsc::channel(1);
    let (ready_tx, ready_rx) = std::sync::mpsc::sync_channel(1);
    let (go_tx, go_rx) = std::sync::mpsc::sync_channel::<()>(1);
    let listener = device.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let watching = watch(tx);
            tokio::pin!(watching);
            assert!(futures_util::poll!(watching.as_mut()).is_pending());
            ready_tx.send(()).unwrap();
            // Nothing is read while the kernel's queue overflows.
            go_rx.recv().unwrap();
            let lost = async {
                loop {
                    if rx
                        .recv()
                        .await
                        .unwrap()
                        .changed
                        .contains(&Changed::Anything)
                    {
                        return;
                    }
                }
            };
            tokio::select! { ended = &mut watching => panic!("{ended:?}"), () = lost => {} }
            ready_tx.send(()).unwrap();
            let next = async {
                loop {
                    if rx
                        .recv()
                        .await
                        .unwrap()
                        .changed
                        .contains(&Changed::Addresses)
                    {
                        return;
                    }
                }
            };
            tokio::select! { ended = &mut watching => panic!("{ended:?}"), () = next => {} }
        });
    });
    ready_rx.recv().unwrap();
    let batch = tempfile::NamedTempFile::new().unwrap();
    let routes: String = (0..4000)
        .map(|n| format!("route add blackhole 10.{}.{}.0/24\n", n / 256, n % 256))
        .collect();
    std::fs::write(batch.path(), routes).unwrap();
    device.ip(&format!("-batch {}", batch.path().display()));
    go_tx.send(()).unwrap();
    ready_rx.recv().unwrap();
    device.ip("address add 192.0.2.77/24 dev wan");
    listener.join().unwrap();
    let root = root("");
    let pass = see(&device, settings(root.path()));
    assert!(
        pass.gap("routes")
            .unwrap()
            .contains("more routes were left out"),
        "{:?}",
        pass.gaps()
    );
    assert!(pass.routes.iter().any(|r| r.destination.is_default()));
}
