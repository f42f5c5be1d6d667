//! Resource limits: the layer that every kernel has.

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

use crate::level::Layer;
use crate::message::Order;

/// Bounds the calling process and all that it starts.
pub(crate) fn enter(order: &Order) -> Result<Layer, Errno> {
    let limits = &order.limits;
    // Hard one second above soft: SIGXCPU first, which a shell reports by name.
    let cpu = u64::from(limits.cpu_seconds);
    setrlimit(Resource::RLIMIT_CPU, cpu, cpu + 1)?;
    let bounds = [
        // No core file: it would hold the script's bindings.
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, limits.scratch_bytes),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        // Init counts as well: it has the same user.
        (Resource::RLIMIT_NPROC, u64::from(limits.processes) + 1),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_SIGPENDING, SIGNALS),
        (Resource::RLIMIT_STACK, STACK),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, bound, bound)?;
    }
    let memory = if order.memory_grouped {
        "by the cgroup"
    } else {
        "of each process"
    };
    Ok(Layer::on(
        "rlimits",
        format!(
            "cpu {cpu} s, {} processes, {OPEN_FILES} files, memory {memory}",
            limits.processes
        ),
    ))
}

/// Bounds the address space of the next program where no controller counts memory. The helper's own may be larger already,
/// so this comes when it has nothing left to allocate.
pub(crate) fn last(order: &Order) -> Result<(), Errno> {
    if order.memory_grouped {
        return Ok(());
    }
    let bound = order.limits.memory_bytes;
    setrlimit(Resource::RLIMIT_AS, bound, bound)
}

const OPEN_FILES: u64 = 256;
const SIGNALS: u64 = 128;
const STACK: u64 = 8 << 20;
