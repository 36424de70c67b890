#!/usr/bin/env python3
"""A client of `flipcall echo` that knows nothing but the wire format: struct, socket, mmap and ctypes.

Usage: rpc_client.py SOCKET [VECTORS]. Exits 0 if everything held; prints what it did.
"""

import array
import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import time

OK, ERROR, CHUNK, END = 0xFF00, 0xFF01, 0xFF02, 0xFF03
OPEN, HELLO, ATTACH, BULK, CONTINUE = 0xFFF0, 0xFFF1, 0xFFF2, 0xFFF3, 0xFFF4
FLAG_BULK, FLAG_PARTS = 1, 2
LEAST_PART = 2048
MEBI = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_FUTEX, FUTEX_WAIT, FUTEX_WAKE = 202, 0, 1
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_FUTURE_WRITE = 1, 2, 4, 16


def blob(data):
    return struct.pack(">I", len(data)) + data


class Wire:
    """Frames on a stream socket, and the descriptors that an ATTACH announced."""

    def __init__(self, sock):
        self.sock, self.buffer, self.fds = sock, b"", []
        sock.settimeout(30)

    def send(self, tag, payload, fds=()):
        frame = struct.pack(">HI", tag, len(payload)) + payload
        if fds:
            self.attach(fds)
        self.sock.sendall(frame)

    def attach(self, fds):
        frame = struct.pack(">HIB", ATTACH, 1, len(fds))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        assert self.sock.sendmsg([frame], rights) == len(frame)

    def fill(self):
        data, control, _, _ = self.sock.recvmsg(1 << 18, socket.CMSG_SPACE(253 * 4))
        for level, kind, rights in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(rights)
                self.fds += fds
        if not data:
            raise EOFError
        self.buffer += data

    def frame(self):
        while len(self.buffer) < 6 or len(self.buffer) < 6 + struct.unpack(">I", self.buffer[2:6])[0]:
            self.fill()
        tag, length = struct.unpack(">HI", self.buffer[:6])
        payload, self.buffer = self.buffer[6 : 6 + length], self.buffer[6 + length :]
        return tag, payload

    def receive(self):
        """The next message and its descriptors."""
        tag, payload = self.frame()
        if tag != ATTACH:
            return tag, payload, []
        count = payload[0]
        tag, payload = self.frame()
        fds, self.fds = self.fds[:count], self.fds[count:]
        return tag, payload, fds


class Socket:
    """Calls as frames on a socket."""

    def __init__(self, wire, version):
        self.wire, self.version = wire, version

    def send(self, tag, payload, fds=(), left=0):
        prefix = struct.pack(">Q", left) if self.version else b""
        self.wire.send(tag, prefix + payload, fds)

    def receive(self):
        return self.wire.receive()

    def next_chunk(self):
        pass


class Window:
    """Calls in a window, beside a socket. Payloads that do not fit it go over the socket, or with extension `parts` through the window."""

    version = 1

    def __init__(self, wire, memfd, offset, length, parts=False):
        self.wire, self.length, self.parts = wire, length, parts
        # What the next part carries at most, so that parts of every size are sent; and how many came.
        self.part, self.came = length - 32, 0
        self.map = mmap.mmap(memfd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)
        import fcntl

        assert fcntl.fcntl(memfd, F_GET_SEALS) & (SEAL_SHRINK | SEAL_GROW) == SEAL_SHRINK | SEAL_GROW
        fcntl.fcntl(memfd, F_ADD_SEALS, SEAL_FUTURE_WRITE | SEAL_SEAL)
        self.word = ctypes.c_uint32.from_buffer(self.map, 0)
        offer = json.dumps({"flipcall": {"version": 1, "extensions": []}}).encode() + b"\n"
        self.flip(offer)
        answer = json.loads(self.wait())
        assert answer.get("flipcall", {}).get("extensions", []) == [], answer

    def flip(self, datagram):
        self.map[16 : 16 + len(datagram)] = datagram
        self.map[4:8] = struct.pack("=I", len(datagram))
        assert self.word.value == 0, self.word.value
        self.word.value = 1
        LIBC.syscall(SYS_FUTEX, ctypes.byref(self.word), FUTEX_WAKE, 1, None, None, 0)

    def wait(self):
        give_up = time.monotonic() + 30
        while self.word.value == 1:
            assert time.monotonic() < give_up, "no answer"
            tenth = (ctypes.c_long * 2)(0, 100_000_000)
            LIBC.syscall(SYS_FUTEX, ctypes.byref(self.word), FUTEX_WAIT, 1, tenth, None, 0)
        assert self.word.value == 0, f"state {self.word.value}"
        (length,) = struct.unpack("=I", self.map[4:8])
        assert length <= self.length - 16
        return self.map[16 : 16 + length]

    def send(self, tag, payload, fds=(), left=0):
        payload = struct.pack(">Q", left) + payload
        if fds:
            self.wire.attach(fds)
        if 4 + len(payload) <= self.length - 16:
            return self.flip(struct.pack("=HBB", tag, len(fds), 0) + payload)
        if self.parts:
            return self.send_parts(tag, payload, len(fds))
        self.flip(struct.pack("=HBBQ", tag, len(fds), FLAG_BULK, len(payload)))
        for at in range(0, len(payload), MEBI):
            self.wire.send(BULK, payload[at : at + MEBI])

    def send_parts(self, tag, payload, fds):
        at, number = 0, len(payload)
        while True:
            part = payload[at : at + self.part]
            self.flip(struct.pack("=HBBIQ", tag, fds, FLAG_PARTS, 0, number) + part)
            at += len(part)
            if at == len(payload):
                break
            assert self.wait() == struct.pack("=HBB", CONTINUE, 0, 0)
            tag, fds, number = BULK, 0, at
        self.part = LEAST_PART if self.part == self.length - 32 else self.length - 32

    def receive_parts(self, total, part):
        payload = part
        self.came = 1
        while len(payload) < total:
            assert len(part) >= LEAST_PART, len(part)
            self.next_chunk()
            datagram = self.wait()
            assert datagram[:16] == struct.pack("=HBBIQ", BULK, 0, FLAG_PARTS, 0, len(payload)), datagram[:16]
            part = datagram[16:]
            payload, self.came = payload + part, self.came + 1
        assert len(payload) == total
        return payload

    def receive(self):
        datagram = self.wait()
        tag, count, flags = struct.unpack("=HBB", datagram[:4])
        fds = []
        if count:
            attach, announced = self.wire.frame()
            assert attach == ATTACH and announced[0] == count
            fds, self.wire.fds = self.wire.fds[:count], self.wire.fds[count:]
        if not flags:
            return tag, datagram[4:], fds
        if flags == FLAG_PARTS:
            zero, total = struct.unpack("=IQ", datagram[4:16])
            assert self.parts and zero == 0
            return tag, self.receive_parts(total, datagram[16:]), fds
        assert flags == FLAG_BULK and len(datagram) == 12
        (left,) = struct.unpack("=Q", datagram[4:])
        payload = b""
        while left:
            bulk, piece = self.wire.frame()
            assert bulk == BULK and len(piece) == min(left, MEBI), (hex(bulk), len(piece))
            payload, left = payload + piece, left - len(piece)
        return tag, payload, fds

    def next_chunk(self):
        self.flip(struct.pack("=HBB", CONTINUE, 0, 0))

    def close(self):
        del self.word
        self.map.close()


def call(line, tag, payload=b"", fds=(), left=0):
    line.send(tag, payload, fds, left)
    tag, payload, fds = line.receive()
    if tag == ERROR:
        return ("error", *error(payload))
    assert tag == OK and payload[:1] == b"\0", (hex(tag), payload[:20])
    return ("ok", payload[1:], fds)


def error(payload):
    code, at, texts = payload[0], 1, []
    for _ in range(3):
        (length,) = struct.unpack(">I", payload[at : at + 4])
        texts.append(payload[at + 4 : at + 4 + length].decode())
        at += 4 + length
    assert at == len(payload)
    return code, *texts


def pattern(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def check_calls(name, line):
    for size in (0, 1, 48, 4000, 4063, 4064, 4065, 300_000, MEBI - 4, MEBI, 3 * MEBI + 5):
        data = pattern(size)
        verdict, answer, _ = call(line, 1, blob(data))
        assert verdict == "ok" and answer == blob(data), (name, size)
    assert call(line, 2, struct.pack(">QQ", 40, 2)) == ("ok", struct.pack(">Q", 42), [])
    assert call(line, 2, struct.pack(">QQ", 2**64 - 1, 1))[:2] == ("error", 2)
    assert call(line, 2, b"\0" * 17)[:2] == ("error", 2), "trailing bytes"
    assert call(line, 3, struct.pack(">I", 1)) == ("ok", b"", [])
    wanted = bytes([123]) + blob(b"m") + blob(b"o") + blob("pfad ä".encode())
    assert call(line, 5, wanted) == ("error", 123, "m", "o", "pfad ä")
    assert call(line, 5, bytes([1]) + blob(b"\xff") + blob(b"") + blob(b""))[:2] == ("error", 2), "not UTF-8"
    assert call(line, 5, bytes([0]) + blob(b"") * 3)[:2] == ("error", 2)
    assert call(line, 6)[:2] == ("error", 99)
    assert struct.unpack(">III", call(line, 7)[1]) == (os.getpid(), os.getuid(), os.getgid())
    for unknown in (0, 0x0BAD, 0xFEFF, 0xFF10, 0xFFFF):
        verdict, code, message, *_ = call(line, unknown)
        assert (verdict, code) == ("error", 2) and f"{unknown:#06x}" in message, (name, unknown, message)
    if line.version:
        assert call(line, 3, struct.pack(">I", 5000), left=50_000_000)[:2] == ("error", 5)
    print(f"{name}: calls and errors")


def check_stream(name, line):
    line.send(4, struct.pack(">II", 5, 700))
    for index in range(5):
        tag, chunk, _ = line.receive()
        assert tag == CHUNK and chunk == bytes([index]) * 700, (name, index)
        line.next_chunk()
    assert line.receive()[:2] == (END, b"")
    if isinstance(line, Window):
        assert call(line, 4, struct.pack(">II", 0, 2**31))[:2] == ("error", 64)
    line.send(4, struct.pack(">II", 0, 10))
    assert line.receive()[:2] == (END, b"")
    print(f"{name}: streams")


def check_fds(name, line):
    memfd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, 777)
    for _ in range(20):
        verdict, answer, fds = call(line, 8, fds=[memfd])
        assert verdict == "ok" and struct.unpack(">Q", answer) == (777,) and len(fds) == 1
        assert os.read(fds[0], 100) == b"flipcall\n" and os.read(fds[0], 1) == b""
        os.close(fds[0])
    assert call(line, 8)[:2] == ("error", 2)
    assert call(line, 2, struct.pack(">QQ", 1, 1), fds=[memfd])[:2] == ("error", 2)
    reader, writer = os.pipe()
    assert call(line, 8, fds=[reader])[:2] == ("error", 2)
    for fd in (memfd, reader, writer):
        os.close(fd)
    print(f"{name}: descriptors")


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return Wire(sock)


def hello(wire, version=1, maximum=64 * MEBI, extensions=()):
    wire.send(HELLO, struct.pack(">IQI", version, maximum, len(extensions)) + b"".join(map(blob, extensions)))
    tag, payload, _ = wire.receive()
    return tag, payload


def open_channel(base, window, parts=False):
    verdict, answer, fds = call(base, OPEN, struct.pack(">I", window))
    assert verdict == "ok", answer
    offset, length = struct.unpack(">QI", answer)
    if length == 0:
        assert len(fds) == 1 and offset == 0
        return Socket(Wire(socket.socket(fileno=fds[0])), 1)
    memfd, sock = fds
    line = Window(Wire(socket.socket(fileno=sock)), memfd, offset, length, parts)
    os.close(memfd)
    return line


def check_hello(path):
    for version, maximum, extensions in ((0, MEBI, ()), (1, 4095, ()), (1, MEBI, [b"x"] * 65), (1, MEBI, [b"\xff"])):
        wire = connect(path)
        tag, payload = hello(wire, version, maximum, extensions)
        assert tag == ERROR and payload[0] == 2, (version, maximum)
        assert call(Socket(wire, 0), 2, struct.pack(">QQ", 1, 1))[0] == "ok", "the connection stays as it was"
    wire = connect(path)
    tag, payload = hello(wire, version=7, extensions=[b"future"])
    assert tag == OK and struct.unpack(">IQI", payload[1:])[::2] == (1, 0)
    tag, payload = hello(connect(path), extensions=[b"future", b"parts"])
    assert tag == OK and payload[13:] == struct.pack(">I", 1) + blob(b"parts"), payload
    assert hello(wire)[0] == ERROR, "a second HELLO"
    base = Socket(wire, 1)
    wire.send(2, b"\0" * 7)
    tag, payload, _ = wire.receive()
    assert tag == ERROR and payload[0] == 2, "no room for a deadline"
    assert call(base, 2, struct.pack(">QQ", 1, 1))[0] == "ok"
    channel = open_channel(base, 0)
    assert call(channel, OPEN, struct.pack(">I", 0))[:2] == ("error", 2), "OPEN on a channel"
    assert call(channel, HELLO, b"")[:2] == ("error", 2), "HELLO on a channel"
    print("HELLO and its edges")


def check_parts(path):
    wire = connect(path)
    assert hello(wire, extensions=[b"parts"])[0] == OK
    base = Socket(wire, 1)
    for name, size, most in (("page window", 1, 3), ("16 KiB window", 16_384, 8), ("window", 262_144, 9)):
        line = open_channel(base, size, parts=True)
        check_calls(f"{name} with parts", line)
        for size, parts in ((line.length, 2), (most * (line.length - 32) - 5, most)):
            data = pattern(size)
            assert call(line, 1, blob(data))[:2] == ("ok", blob(data)) and line.came == parts, (name, size, line.came)
        check_fds(f"{name} with parts", line)
        # A payload in parts with its deadline in the first of them, and one of a method that takes fds.
        data = struct.pack(">I", 5000) + bytes(line.length)
        assert call(line, 3, data)[:2] == ("error", 2), "trailing bytes"
        assert call(line, 0x0BAD, data)[:2] == ("error", 2)
    print("parts")


def check_vectors(path, folder):
    """Each file: request bytes and answer bytes in hex, on a base connection."""
    count = 0
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".call"):
            continue
        with open(os.path.join(folder, name)) as file:
            lines = [line.split("#")[0].split() for line in file]
        data = {words[0]: bytes.fromhex("".join(words[1:])) for words in lines if words}
        wire = connect(path)
        wire.sock.sendall(data["request"])
        while len(wire.buffer) < len(data["answer"]):
            wire.fill()
        assert wire.buffer == data["answer"], (name, wire.buffer.hex(), data["answer"].hex())
        count += 1
    assert count, "no vectors"
    print(f"{count} vectors")


def main():
    path = sys.argv[1]
    if len(sys.argv) > 2:
        check_vectors(path, sys.argv[2])
    base = Socket(connect(path), 0)
    check_calls("base protocol", base)
    check_stream("base protocol", base)
    check_hello(path)
    wire = connect(path)
    assert hello(wire)[0] == OK
    base = Socket(wire, 1)
    lines = [("version 1", base), ("socket channel", open_channel(base, 0)), ("page window", open_channel(base, 1))]
    lines.append(("window", open_channel(base, 262_144)))
    for name, line in lines:
        check_calls(name, line)
        check_stream(name, line)
        check_fds(name, line)
    check_parts(path)
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.sock.recv(1) == b"", "the end of a base connection"
    print("all held")


main()
