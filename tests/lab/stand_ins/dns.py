"""A resolver that answers as a sick one would: dns.py ADDRESS HOW [VALUE].

slow SECONDS IPV4 NAME   that name has that address and no other name exists; all answers are late
all IPV4            every name has that address, also one that can't exist
unsigned IPV4       SERVFAIL unless checking is disabled (CD bit, RFC 4035): validation fails
rcode NUMBER        every answer is this error
garbage             bytes that are no answer
"""
import socket
import sys
import threading
import time

address, how, values = sys.argv[1], sys.argv[2], sys.argv[3:]
server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))


def question_end(packet):
    at = 12
    while packet[at]:
        at += packet[at] + 1
    return at + 5


def name(packet):
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii", "replace"))
        at += packet[at] + 1
    return ".".join(labels).lower()


def reply(packet, rcode, ip=None):
    # The question without additional records: an OPT record of the client is not echoed.
    question = packet[12:question_end(packet)]
    is_a = question[-4:-2] == b"\0\1"
    answered = ip is not None and is_a
    head = packet[:2] + bytes([0x81, 0x80 | rcode]) + b"\0\1" + (b"\0\1" if answered else b"\0\0") + b"\0\0\0\0"
    tail = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ip) if answered else b""
    return head + question + tail


def answer(packet, peer):
    if how == "slow":
        time.sleep(float(values[0]))
        out = reply(packet, 0, values[1]) if name(packet) == values[2].lower() else reply(packet, 3)
    elif how == "all":
        out = reply(packet, 0, values[0])
    elif how == "unsigned":
        out = reply(packet, 0, values[0]) if packet[3] & 0x10 else reply(packet, 2)
    elif how == "rcode":
        out = reply(packet, int(values[0]))
    else:
        out = b"\0" * 7
    server.sendto(out, peer)


while True:
    threading.Thread(target=answer, args=server.recvfrom(4096), daemon=True).start()
