"""An SDS server down to the frames of HTTP/2, for what no library lets one do: standard library only, but for sds.py.

    raw.py SOCKET --fault NAME [--ttl 8] [--every 4] [--from-renewal 1]

    hangs       takes connections, reads nothing and says nothing
    silent      takes streams, and never answers
    half        ends a response in the middle, and the stream with it
    half-hangs  sends the first half of a response, and then nothing more
    half-dies   dies in the middle of a response
    floods      sends what there is under ever new versions from the renewal on, as fast as they are taken
"""

import itertools
import os
import signal
import socket
import struct
import sys
import threading

from sds import Provider, Request, arguments

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# `:status 200`, `content-type: application/grpc`; `grpc-status: 0`. Literals without indexing, no Huffman code.
ANSWERED = b"\x88\x0f\x10\x10application/grpc"
ENDED = b"\x00\x0bgrpc-status\x010"


class Connection:
    def __init__(self, provider, sock):
        self.provider, self.sock = provider, sock
        self.writes = threading.Condition()
        self.initial, self.window, self.windows, self.open = 65535, 65535, {}, True
        self.witnesses = set()

    def read(self, n):
        data = b""
        while len(data) < n:
            piece = self.sock.recv(n - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def frame(self, kind, flags, stream, payload=b""):
        with self.writes:
            self.sock.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def data(self, stream, data):
        """As much as the other side's windows allow; it waits for them."""
        while data:
            with self.writes:
                while self.open and stream in self.windows and min(self.window, self.windows[stream]) <= 0:
                    self.writes.wait(1)
                if not self.open or stream not in self.windows:
                    raise ConnectionError
                n = min(len(data), 16384, self.window, self.windows[stream])
                self.window -= n
                self.windows[stream] -= n
            self.frame(DATA, 0, stream, data[:n])
            data = data[n:]

    def serve(self):
        bodies = {}
        try:
            assert self.read(len(PREFACE)) == PREFACE
            self.frame(SETTINGS, 0, 0)
            while True:
                head = self.read(9)
                length, (kind, flags, stream) = int.from_bytes(head[:3], "big"), struct.unpack(">BBI", head[3:])
                payload = self.read(length)
                if kind == SETTINGS and not flags & 1:
                    self.settings(payload)
                    self.frame(SETTINGS, 1, 0)
                elif kind == PING and not flags & 1:
                    self.frame(PING, 1, 0, payload)
                elif kind == WINDOW_UPDATE:
                    self.widen(stream, struct.unpack(">I", payload)[0])
                elif kind == RST_STREAM:
                    with self.writes:
                        self.windows.pop(stream, None)
                        self.writes.notify_all()
                elif kind == HEADERS:
                    with self.writes:
                        self.windows[stream] = self.initial
                    bodies[stream] = b""
                elif kind == DATA and payload:
                    for at in (0, stream):
                        self.frame(WINDOW_UPDATE, 0, at, struct.pack(">I", length))
                    bodies[stream] += payload
                    self.messages(stream, bodies)
        except (ConnectionError, OSError):
            pass
        with self.writes:
            self.open = False
            self.writes.notify_all()
        self.sock.close()

    def settings(self, payload):
        for key, value in struct.iter_unpack(">HI", payload):
            if key == 4:
                with self.writes:
                    self.windows = {stream: n + value - self.initial for stream, n in self.windows.items()}
                    self.initial = value
                    self.writes.notify_all()

    def widen(self, stream, by):
        with self.writes:
            if stream == 0:
                self.window += by
            elif stream in self.windows:
                self.windows[stream] += by
            self.writes.notify_all()

    def messages(self, stream, bodies):
        body = bodies[stream]
        while len(body) >= 5 and len(body) >= 5 + struct.unpack(">I", body[1:5])[0]:
            length = struct.unpack(">I", body[1:5])[0]
            request, body = Request(body[5 : 5 + length]), body[5 + length :]
            if not request.nonce:
                if b"witness" in request.node:
                    self.witnesses.add(stream)
                threading.Thread(target=self.answers, args=(stream, request.names[0]), daemon=True).start()
            elif request.names[0] == "default" and stream not in self.witnesses:
                self.provider.begun.set()
        bodies[stream] = body

    def answers(self, stream, name):
        provider = self.provider
        try:
            if provider.args.fault == "silent":
                return
            self.frame(HEADERS, 4, stream, ANSWERED)
            with provider.changed:
                if name == "default" and not provider.begun.is_set():
                    provider.leaf = provider.authority.leaf(provider.args.ttl)
                seen = provider.renewal
                message = self.message(name, seen)
            self.data(stream, message)
            while self.open and stream in self.windows:
                with provider.changed:
                    provider.changed.wait(0.2)
                    if provider.renewal == seen or name != "default":
                        continue
                    seen = provider.renewal
                    message = self.message(name, seen)
                if provider.args.fault.startswith("half") and provider.fault(provider.args.fault):
                    self.data(stream, message[: len(message) // 2])
                    if provider.fault("half-dies"):
                        os._exit(3)
                    if provider.fault("half"):
                        self.frame(HEADERS, 5, stream, ENDED)
                    return
                self.data(stream, message)
                if provider.fault("floods"):
                    for n in itertools.count(0, 50):
                        pushes = [self.message(name, f"{n + i}") for i in range(50)]
                        self.data(stream, b"".join(pushes))
        except (ConnectionError, OSError):
            pass

    def message(self, name, version):
        data = self.provider.answer(name, f"v{version}", f"n{version}")
        return b"\0" + struct.pack(">I", len(data)) + data


def main():
    args = arguments()
    provider = Provider(args)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(args.socket)
    listener.listen(64)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    held = []

    def accept():
        while True:
            sock = listener.accept()[0]
            if args.fault == "hangs":
                held.append(sock)
            else:
                threading.Thread(target=Connection(provider, sock).serve, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("serving", flush=True)
    # Ends with whoever started it.
    sys.stdin.read()
    os._exit(0)


main()
