# SPDX-License-Identifier: Apache-2.0
"""The engine as a command inside the window's own system, which has no engine: joins stdin and stdout to one that the test started outside,
as `ssh HOST body4d serve` would. `relay.py PORT [serve]`."""

import os
import socket
import sys
import threading

link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))


def send() -> None:
    while data := os.read(0, 1 << 16):
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)


threading.Thread(target=send, daemon=True).start()
while data := link.recv(1 << 16):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
