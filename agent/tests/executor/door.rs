//! The read-only door of the executor's own process.

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, Question};
use aizen_protocol::record::Body;

use crate::device::{Device, with_device};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("what_needs_a_capability_is_seen_through_the_door", seen),
    ("a_probe_is_not_sent_again_at_once_whoever_asks", not_again),
];

async fn ask(device: &Device, question: Question) -> ExecutorAnswer {
    device.ask(ExecutorRequest::See(question)).await
}

fn seen() {
    with_device(async |mut device: Device| {
        device.start().await;
        let answer = ask(&device, Question::Filter).await;
        let ExecutorAnswer::Seen { body, .. } = answer else {
            panic!("{answer:?}")
        };
        assert!(matches!(*body, Body::Filter(_)), "{body:?}");
        let answer = ask(&device, Question::KernelLog).await;
        let ExecutorAnswer::Seen { body, .. } = answer else {
            panic!("{answer:?}")
        };
        assert!(matches!(*body, Body::Log(_)), "{body:?}");
    });
}

fn not_again() {
    with_device(async |mut device: Device| {
        device.start().await;
        let probe = |dev: &str| Question::DhcpProbe {
            dev: dev.to_owned(),
        };
        let failed = async |question| match ask(&device, question).await {
            ExecutorAnswer::Failed { message } => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            failed(probe("none0")).await,
            "none0 is no Ethernet link of this device"
        );
        let refused = failed(probe("none0")).await;
        assert!(refused.contains("less than 10 s ago"), "{refused}");
        assert_eq!(
            failed(probe("none1")).await,
            "none1 is no Ethernet link of this device"
        );
    });
}
