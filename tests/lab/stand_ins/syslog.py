"""Runs a program and writes what it says into a file as a syslog daemon would (RFC 3164): syslog.py FILE PROGRAM WORD…"""
import os
import sys
import time

ear, mouth = os.pipe()
if os.fork():
    os.dup2(mouth, 2)
    os.execvp(sys.argv[2], sys.argv[2:])
os.close(mouth)
name = os.path.basename(sys.argv[2])
with os.fdopen(ear) as lines, open(sys.argv[1], "a", buffering=1) as log:
    for line in lines:
        log.write(f"{time.strftime('%b %e %T')} router {name}[1]: {line.removeprefix(name + ': ')}")
