"""Listens and never accepts: lazy.py ADDRESS PORT BACKLOG."""
import socket
import sys
import time

server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen(int(sys.argv[3]))
while True:
    time.sleep(3600)
