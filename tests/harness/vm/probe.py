"""What a script in the sandbox finds by trying: facts for the kernel matrix, as one JSON object."""
import json, os, resource, signal, socket, sys, time

facts = {}
with open("/proc/self/status") as status:
    for line in status:
        key, value = line.rstrip("\n").split(":", 1)
        if key in ("Uid", "Gid", "NoNewPrivs", "Seccomp") or key.startswith("Cap"):
            facts[key] = value.split()
facts["namespaces"] = {
    name: os.readlink("/proc/self/ns/" + name)
    for name in ("mnt", "pid", "ipc", "uts", "cgroup", "net", "user")
}


def tried(act):
    try:
        act()
        return "done"
    except OSError as error:
        return error.strerror


def write_random():
    # World-writable and mounted read-write: only Landlock stands before it.
    with open("/dev/urandom", "wb", buffering=0) as device:
        device.write(b"x")


facts["write_random"] = tried(write_random)
# The sandbox's own first process: another Landlock domain, the same user.
facts["signal_init"] = tried(lambda: os.kill(1, 0))
facts["internet_socket"] = tried(lambda: socket.socket(socket.AF_INET))
facts["terminal"] = tried(lambda: open("/dev/tty"))
facts["session_of_others"] = os.getsid(0) == 0
facts["cpu_s"] = resource.getrlimit(resource.RLIMIT_CPU)[0]
facts["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
facts["descriptors"] = sorted(
    int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)
)
facts["environment"] = sorted(os.environ)
children = []
try:
    for _ in range(64):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
except OSError:
    pass
facts["forks"] = len(children)
for child in children:
    os.kill(child, signal.SIGKILL)
json.dump(facts, sys.stdout)
