"""An SNTP server (RFC 4330, stratum 2) whose clock is off by so many seconds: ntp.py ADDRESS SECONDS."""
import socket
import struct
import sys
import time

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 123))
while True:
    question, peer = server.recvfrom(512)
    now = time.time() + 2208988800 + float(sys.argv[2])
    stamp = struct.pack("!II", int(now), int((now % 1) * 2**32))
    head = struct.pack("!BBbb", 0x24, 2, 6, -20) + b"\0" * 8 + b"GPS\0"
    server.sendto(head + stamp + question[40:48] + stamp + stamp, peer)
