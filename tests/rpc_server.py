#!/usr/bin/env python3
"""A server of calls that knows nothing but the wire format, and breaks it in the way it is told to.

Usage: rpc_server.py SOCKET. It ends when its standard input does. Its methods:

1 echo: bytes -> bytes, by the way that the request came
2 attack: the name of an attack, bytes of padding
3 arm: the name of an attack, with which the next HELLO or OPEN is answered
4 names: the name of a group of attacks -> their names
5 ways: -> by which ways requests of echo have come since the last time
"""

import array
import fcntl
import os
import signal
import sys
import threading

arguments = sys.argv[1:]
folder = os.path.dirname(os.path.abspath(__file__))
source = open(os.path.join(folder, "rpc_client.py")).read()
exec(source.rsplit("\nmain()", 1)[0])

FLAG_BULK, FLAG_PARTS = 1, 2
GO_ON = struct.pack("=HBB", CONTINUE, 0, 0)
# The largest answer that the tests' clients accept.
MAXIMUM = 2 * MEBI
ARMED, WAYS = [], set()


class Gone(Exception):
    """The client ended the channel."""


def texts(names):
    return struct.pack(">I", len(names)) + b"".join(blob(name.encode()) for name in names)


def name_in(request):
    (length,) = struct.unpack(">I", request[:4])
    return request[4 : 4 + length].decode()


def status(code, message):
    return bytes([code]) + blob(message.encode()) + blob(b"") + blob(b"")


class Calls:
    """The server's side of calls that are frames on a socket."""

    def __init__(self, wire):
        self.wire, self.version, self.parts = wire, 0, False
        wire.sock.settimeout(None)

    def receive(self):
        tag, payload, fds = self.wire.receive()
        for fd in fds:
            os.close(fd)
        if self.version and tag != HELLO:
            payload = payload[8:]
        return tag, payload, "socket"

    def answer(self, tag, payload, fds=(), way=None):
        self.wire.send(tag, payload, fds)

    def go_on(self):
        pass

    def stop(self):
        """Does nothing until the client hangs up."""
        while self.wire.sock.recv(4096):
            pass
        raise Gone

    def close(self):
        self.wire.sock.close()


class Served:
    """The server's side of a window, and the socket beside it."""

    def __init__(self, base, length, seals=SEAL_SHRINK | SEAL_GROW):
        ours, self.theirs = socket.socketpair()
        self.wire, self.length, self.base, self.parts = Wire(ours), length, base, base.parts
        ours.settimeout(None)
        self.memfd = os.memfd_create("window", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memfd, length)
        fcntl.fcntl(self.memfd, F_ADD_SEALS, seals)
        self.map = mmap.mmap(self.memfd, length)
        self.word = ctypes.c_uint32.from_buffer(self.map, 0)

    def greet(self):
        json.loads(self.wait())
        self.flip(b"{}\n")

    def state(self, value):
        self.word.value = value
        LIBC.syscall(SYS_FUTEX, ctypes.byref(self.word), FUTEX_WAKE, 1, None, None, 0)

    def flip(self, datagram, length=None):
        self.map[16 : 16 + len(datagram)] = datagram
        self.map[4:8] = struct.pack("=I", len(datagram) if length is None else length)
        if self.word.value != 1:
            raise Gone
        self.state(0)

    def wait(self):
        while self.word.value == 0:
            tenth = (ctypes.c_long * 2)(0, 100_000_000)
            LIBC.syscall(SYS_FUTEX, ctypes.byref(self.word), FUTEX_WAIT, 0, tenth, None, 0)
            try:
                if self.word.value == 0 and not self.wire.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise Gone
            except BlockingIOError:
                pass
        if self.word.value != 1:
            raise Gone
        (length,) = struct.unpack("=I", self.map[4:8])
        return self.map[16 : 16 + length]

    def go_on(self):
        """The client asks for what comes next."""
        assert self.wait() == GO_ON

    def stop(self):
        """Does nothing, with control or without, until the client ends the channel."""
        while True:
            if self.word.value == 0:
                self.wait()
            if self.word.value != 1:
                raise Gone
            time.sleep(0.01)

    def receive(self):
        datagram = self.wait()
        tag, count, flags = struct.unpack("=HBB", datagram[:4])
        if count:
            assert self.wire.frame()[0] == ATTACH
            for fd in self.wire.fds:
                os.close(fd)
            self.wire.fds = []
        if flags == FLAG_BULK:
            return tag, self.receive_bulk(tag, *struct.unpack("=Q", datagram[4:])), "bulk"
        if flags == FLAG_PARTS:
            assert self.parts, "parts without the extension"
            return tag, self.receive_parts(tag, datagram), "parts"
        return tag, datagram[12:], "window"

    def interrupt(self, tag, payload):
        """The rest of a request is not taken if it asks for an attack on it."""
        name = name_in(payload[8:]) if tag == 2 else None
        attack = REQUESTS.get(name) or CONTINUES.get(name)
        if attack:
            attack(self)
            self.stop()

    def receive_bulk(self, tag, length):
        payload = b""
        while len(payload) < length:
            bulk, piece = self.wire.frame()
            assert bulk == BULK and len(piece) == min(length - len(payload), MEBI), (hex(bulk), len(piece))
            payload += piece
            self.interrupt(tag, payload)
        return payload[8:]

    def receive_parts(self, tag, datagram):
        (length,) = struct.unpack("=Q", datagram[8:16])
        assert datagram[4:8] == bytes(4)
        payload = datagram[16:]
        self.interrupt(tag, payload)
        while len(payload) < length:
            assert len(datagram) >= 16 + 2048, "a part that is too short"
            self.flip(GO_ON)
            datagram = self.wait()
            assert datagram[:16] == part(BULK, len(payload), b"")
            payload += datagram[16:]
        assert len(payload) == length
        return payload[8:]

    def answer(self, tag, payload, fds=(), way=None):
        if fds:
            self.wire.attach(fds)
        if 4 + len(payload) <= self.length - 16:
            return self.flip(struct.pack("=HBB", tag, len(fds), 0) + payload)
        if way != "parts":
            self.flip(announced(len(payload)))
            for at in range(0, len(payload), MEBI):
                self.wire.send(BULK, payload[at : at + MEBI])
            return
        room = self.length - 32
        for at in range(0, len(payload), room):
            head = (BULK, at) if at else (tag, len(payload))
            self.flip(part(*head, payload[at : at + room], fds=0 if at else len(fds)))
            if at + room < len(payload):
                self.go_on()

    def give_away(self):
        """The client has its file and its socket."""
        if self.memfd is not None:
            os.close(self.memfd)
            self.theirs.close()
            self.memfd = None

    def close(self):
        self.give_away()
        del self.word
        self.map.close()
        self.wire.sock.close()


def announced(length, tag=OK, flags=FLAG_BULK):
    return struct.pack("=HBBQ", tag, 0, flags, length)


def part(tag, number, payload, fds=0, flags=FLAG_PARTS, zero=0):
    return struct.pack("=HBBIQ", tag, fds, flags, zero, number) + payload


def frame(tag, payload=b"", length=None):
    return struct.pack(">HI", tag, len(payload) if length is None else length) + payload


exec(open(os.path.join(folder, "rpc_attacks.py")).read())


def serve(line, tag, payload, way):
    if tag == 1:
        WAYS.add(way)
        line.answer(OK, b"\0" + payload, way=way)
    elif tag == 2:
        attack(line, name_in(payload))
    elif tag == 3:
        ARMED.append(name_in(payload))
        line.answer(OK, b"\0")
    elif tag == 4:
        line.answer(OK, b"\0" + texts(list(GROUPS[name_in(payload)])))
    elif tag == 5:
        line.answer(OK, b"\0" + texts(sorted(WAYS)))
        WAYS.clear()
    else:
        line.answer(ERROR, status(2, f"{tag:#06x}"))


def attack(line, name):
    on_this = WINDOW if isinstance(line, Served) else SOCKET
    (on_this.get(name) or ANSWERS[name])(line)


def serve_channel(line, is_window):
    if is_window:
        line.greet()
    while True:
        serve(line, *line.receive())


def armed(group):
    return group[ARMED.pop()] if ARMED and ARMED[-1] in group else None


def hello(base, payload):
    version, maximum, count = struct.unpack(">IQI", payload[:16])
    assert version == 1 and maximum >= 4096
    if attack := armed(HELLOS):
        return base.wire.send(*attack)
    offered = payload[16:] == blob(b"parts")
    assert count == 1 and offered or count == 0 and not payload[16:], payload
    base.version, base.parts = 1, offered
    base.wire.send(*hello_answer(1, 64 * MEBI, [b"parts"] if offered else []))


def open_channel(base, window):
    if window == 0:
        ours, theirs = socket.socketpair()
        line = Calls(Wire(ours))
        line.version = 1
        base.answer(OK, b"\0" + OPENED.pack(0, 0), [theirs.fileno()])
        theirs.close()
        return start(serve_channel, line, False)
    if ARMED and ARMED[-1] == "OPEN: a window larger than asked":
        ARMED.pop()
        window = 8 * MEBI
    line = Served(base, -(-window // 4096) * 4096)
    if attack := armed(OPENS | SILENCE | OPENS_AT_ALL):
        try:
            attack(line)
        except Gone:
            pass
        return line.close()
    opened_whole(line)
    line.give_away()
    start(serve_channel, line, True)


def serve_base(base):
    while True:
        tag, payload, way = base.receive()
        if tag == HELLO:
            hello(base, payload)
        elif tag == OPEN:
            open_channel(base, *struct.unpack(">I", payload))
        else:
            serve(base, tag, payload, way)


def start(function, line, *more):
    def run():
        try:
            function(line, *more)
        except (Gone, EOFError, OSError):
            pass
        finally:
            line.close()

    threading.Thread(target=run, daemon=True).start()


def accept(listener):
    while True:
        start(serve_base, Calls(Wire(listener.accept()[0])))


def main():
    if os.path.exists(arguments[0]):
        os.unlink(arguments[0])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(arguments[0])
    listener.listen()
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    print("listening", flush=True)
    sys.stdin.read()


main()
