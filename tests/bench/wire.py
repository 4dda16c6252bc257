"""One keep-alive HTTP client on a loopback socket, as thin as Python allows, and servers in processes of their own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Client:
    """Sends ready bytes, reads one answer."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host = f"{parts.hostname}:{parts.port}"
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, path: str, body: object) -> bytes:
        """The bytes of a POST."""
        raw = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw

    def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer. Raises ConnectionError for anything but 200."""
        self._socket.sendall(request)
        data = self._socket.recv(1 << 16)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        head, body = data[:end], data[end + 4 :]
        found = _LENGTH.search(head)
        if found is None or not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(data[:300].decode(errors="replace"))
        while len(body) < int(found[1]):
            body += self._more()
        return head, body

    def _more(self) -> bytes:
        more = self._socket.recv(1 << 16)
        if not more:
            raise ConnectionError("the server closed the connection")
        return more

    def close(self) -> None:
        self._socket.close()


@contextmanager
def server(*command: str, **environment: str) -> Iterator[str]:
    """Run a module as a server that prints its address in its first line with one; stopped by its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                yield found[0]
                return
        raise RuntimeError(f"{command[0]} ended before it listened, exit code {process.wait()}")
    finally:
        process.terminate()
        process.wait(timeout=60)
