//! Names of the standard groups of statistics, as `ethtool --all-groups` prints them (IEEE 802.3 30.3, RFC 2819).

/// The name of a total in a group (`ETHTOOL_STATS_*`); none for one of a newer kernel.
pub(super) fn name(group: u32, number: u16) -> Option<&'static str> {
    let names = match group {
        0 => PHY,
        1 => MAC,
        2 => CONTROL,
        3 => RMON,
        _ => return None,
    };
    names.get(usize::from(number)).copied()
}

const PHY: &[&str] = &["SymbolErrorDuringCarrier"];

const MAC: &[&str] = &[
    "FramesTransmittedOK",
    "SingleCollisionFrames",
    "MultipleCollisionFrames",
    "FramesReceivedOK",
    "FrameCheckSequenceErrors",
    "AlignmentErrors",
    "OctetsTransmittedOK",
    "FramesWithDeferredXmissions",
    "LateCollisions",
    "FramesAbortedDueToXSColls",
    "FramesLostDueToIntMACXmitError",
    "CarrierSenseErrors",
    "OctetsReceivedOK",
    "FramesLostDueToIntMACRcvError",
    "MulticastFramesXmittedOK",
    "BroadcastFramesXmittedOK",
    "FramesWithExcessiveDeferral",
    "MulticastFramesReceivedOK",
    "BroadcastFramesReceivedOK",
    "InRangeLengthErrors",
    "OutOfRangeLengthField",
    "FrameTooLongErrors",
];

const CONTROL: &[&str] = &[
    "MACControlFramesTransmitted",
    "MACControlFramesReceived",
    "UnsupportedOpcodesReceived",
];

const RMON: &[&str] = &[
    "etherStatsUndersizePkts",
    "etherStatsOversizePkts",
    "etherStatsFragments",
    "etherStatsJabbers",
];
