"""The far end of a tun: every host answers echo, late by so many milliseconds: late.py MILLISECONDS."""
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"late0", IFF_TUN | IFF_NO_PI))
delay = int(sys.argv[1]) / 1000
waiting = deque()


def answer(packet):
    """The echo reply; the sums change by what the type changed by (RFC 1624)."""
    start = (packet[0] & 15) * 4
    reply = bytearray(packet)
    reply[12:16], reply[16:20] = packet[16:20], packet[12:16]
    reply[start] = 0
    total = struct.unpack_from("!H", reply, start + 2)[0] + 0x0800
    struct.pack_into("!H", reply, start + 2, (total & 0xFFFF) + (total >> 16))
    return bytes(reply)


while True:
    # The last half millisecond is waited for awake: a sleep may end late.
    rest = waiting[0][0] - time.monotonic() - 0.0005 if waiting else None
    if select.select([tun], [], [], rest if rest is None else max(rest, 0))[0]:
        packet = os.read(tun, 2048)
        if packet[0] >> 4 == 4 and packet[9] == 1:
            waiting.append((time.monotonic() + delay, answer(packet)))
    while waiting and waiting[0][0] <= time.monotonic():
        os.write(tun, waiting.popleft()[1])
