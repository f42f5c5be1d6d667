"""Connects again and again and keeps what it got: knock.py ADDRESS PORT PER_SECOND [AT_MOST | UDP SIZE].

With UDP it sends datagrams of that size instead.
"""
import socket
import sys
import time

target, rate = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3])
kept = []
stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if len(sys.argv) > 5 else None
most = int(sys.argv[4]) if len(sys.argv) == 5 else None
while True:
    if stream:
        try:
            stream.sendto(b"x" * int(sys.argv[5]), target)
        except OSError:
            pass
    elif most is None or len(kept) < most:
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(target)
        kept.append(one)
        if len(kept) > 500:
            kept.pop(0).close()
    time.sleep(1 / rate)
