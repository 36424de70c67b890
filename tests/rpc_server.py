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
        """Does nothing, with the pen or without, until the client ends the channel."""
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


# What an attack consists of: functions of a line.


def steps(*functions):
    return lambda line: [function(line) for function in functions]


def answer(tag, payload, fds=0, way=None):
    def answer_with_fds(line):
        null = [os.open("/dev/null", os.O_RDWR)] if fds else []
        line.answer(tag, payload, null * fds, way)
        for fd in null:
            os.close(fd)

    return answer_with_fds


def send(data, fds=0):
    """Bytes on the socket, with descriptors on them."""

    def send_with_fds(line):
        null = os.open("/dev/null", os.O_RDWR)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * fds))]
        sent = line.wire.sock.sendmsg([data], rights if fds else [])
        os.close(null)
        line.wire.sock.sendall(data[sent:])

    return send_with_fds


def flip(datagram, length=None):
    return lambda line: line.flip(datagram, length)


def flip_short(tag, fds, flags, payload=b""):
    return flip(struct.pack("=HBB", tag, fds, flags) + payload)


def bulk(length, *frames, tag=OK):
    return steps(flip(announced(length, tag)), *(send(frame(BULK, payload)) for payload in frames))


def first(size, total, **more):
    """The first part of an answer that decodes."""
    return part(OK, total, (b"\0" + blob(bytes(total - 5)))[:size], **more)


def later(datagram, length=None):
    """3,000 bytes of 9,000, then this, and then the last part, should it be asked for."""
    return steps(flip(first(3000, 9000)), go_on, flip(datagram, length), go_on, flip(part(BULK, 6000, PART)))


def go_on(line):
    line.go_on()


def nothing(line):
    pass


def shut_down(line):
    line.state(2)


def hang_up(line):
    line.wire.sock.shutdown(socket.SHUT_RDWR)
    line.stop()


def stop(line):
    line.stop()


def die(line):
    os.kill(os.getpid(), signal.SIGKILL)


TYPES = {"type 0": 0, "a request": 1, "a chunk": CHUNK, "an end": END}
TYPES |= {"HELLO": HELLO, "BULK": BULK, "CONTINUE": CONTINUE}
WRONG = b"\0" + blob(b"not what was asked for")
PART, SHORT_PART = bytes(3000), bytes(2047)

# Answers to a call on any transport.
ANY = {
    **{f"{name} as the answer": answer(tag, b"\0" * 5) for name, tag in TYPES.items()},
    "a status that is not 0": answer(OK, b"\1" + blob(b"")),
    "a response of nothing": answer(OK, b""),
    "fields that do not decode": answer(OK, b"\0\xff\xff\xff\xffx"),
    "fields that do not decode, for more is behind": answer(OK, b"\0" + blob(b"") + b"x"),
    "an error of nothing": answer(ERROR, b""),
    "an error that is cut off": answer(ERROR, status(2, "x")[:-1]),
    "an error that is not UTF-8": answer(ERROR, b"\2" + blob(b"\xff") + blob(b"") * 2),
    "an error with 4 GiB of text": answer(ERROR, b"\2\xff\xff\xff\xffx"),
}
# The same where descriptors may come.
DESCRIPTORS = {
    "descriptors that nobody asked for": answer(OK, WRONG, fds=16),
    "fields that do not decode, with descriptors": answer(OK, b"\0x", fds=16),
    "an error with descriptors": answer(ERROR, status(2, "x"), fds=1),
    "a chunk with descriptors": answer(CHUNK, b"x", fds=16),
    "a request with descriptors": answer(1, b"x", fds=1),
}
# Answers that are frames.
SOCKET = {
    "a frame of 4 GiB": send(frame(OK, bytes(1000), 0xFFFFFFFF)),
    "a frame over the maximum": send(frame(OK, bytes(1000), MAXIMUM + 1)),
    "two answers": send(frame(OK, WRONG) * 2),
    "an answer and half a header": send(frame(OK, WRONG) + b"\xff"),
    "a chunk and 200 KiB behind it": send(frame(CHUNK, b"x") + bytes(200 << 10)),
    "half a frame, then it closes": steps(send(frame(OK, b"\0", 100)), hang_up),
    "half a frame, then it stops": send(frame(OK, b"\0", 100)),
    "no answer: it stops": nothing,
    "no answer: it closes": hang_up,
}
# Descriptors on frames.
RIGHTS = {
    "descriptors without ATTACH": send(frame(OK, WRONG), 1),
    "ATTACH without descriptors": send(frame(ATTACH, b"\1") + frame(OK, WRONG)),
    "ATTACH of two with one": send(frame(ATTACH, b"\2") + frame(OK, WRONG), 1),
    "ATTACH of none": send(frame(ATTACH, b"\0") + frame(OK, WRONG)),
    "ATTACH and another": steps(send(frame(ATTACH, b"\1"), 1), send(frame(ATTACH, b"\1") + frame(OK, WRONG), 1)),
    "ATTACH of seventeen": send(frame(ATTACH, b"\x11") + frame(OK, WRONG), 17),
    "253 descriptors": send(frame(ATTACH, b"\1"), 253),
}
# Answers in a window.
WINDOW = {
    "a datagram of nothing": flip(b""),
    "a datagram of three bytes": flip(b"abc"),
    "a datagram longer than the window": flip(b"", 0xFFFFFFF0),
    "state 7": lambda line: line.state(7),
    "ATTACH as the answer": answer(ATTACH, b"\1"),
    "flag 128": flip_short(OK, 0, 128, WRONG),
    "seventeen descriptors": steps(send(frame(ATTACH, b"\x11"), 17), flip_short(OK, 17, 0, WRONG)),
    "descriptors that never came": flip_short(OK, 1, 0, WRONG),
    "fewer descriptors than came": steps(send(frame(ATTACH, b"\2"), 2), flip_short(OK, 1, 0, WRONG)),
    "more descriptors than came": steps(send(frame(ATTACH, b"\1"), 1), flip_short(OK, 2, 0, WRONG)),
    "no answer: it stops": nothing,
    "no answer: it closes": hang_up,
    "no answer: it shuts the window down": shut_down,
    "an error as bulk": bulk(5000, bytes(5000), tag=ERROR),
    "a chunk as bulk": bulk(5000, bytes(5000), tag=CHUNK),
    "a request as bulk": bulk(5000, bytes(5000), tag=1),
    "bulk of nothing": bulk(0),
    "bulk of 2^40 bytes": bulk(1 << 40, bytes(MEBI)),
    "bulk over the maximum": bulk(MAXIMUM + 1, bytes(MEBI)),
    "bulk without a length": flip_short(OK, 0, FLAG_BULK),
    "bulk with more than a length": flip(announced(100) + b"x"),
    "fields in bulk that do not decode": bulk(5000, b"\0" + b"\xff" * 4999),
    "bulk with a status that is not 0": bulk(5000, b"\1" * 5000),
    "a short first frame": bulk(3 * MEBI // 2, bytes(100)),
    "a long first frame": bulk(3 * MEBI // 2, bytes(MEBI + 1)),
    "a long last frame": bulk(MEBI + 100, bytes(MEBI), bytes(101)),
    "an only frame that is long": bulk(100, bytes(101)),
    "an empty frame": bulk(100, b""),
    "a bulk frame of 4 GiB": steps(bulk(MEBI), send(frame(BULK, b"", 0xFFFFFFFF))),
    "another frame where bulk is due": steps(bulk(100), send(frame(OK, bytes(100)))),
    "a bulk frame with descriptors": steps(bulk(100), send(frame(ATTACH, b"\1"), 1), send(frame(BULK, bytes(100)))),
    "bulk that stops": bulk(3 * MEBI // 2, bytes(MEBI)),
    "bulk that stops inside a frame": steps(bulk(MEBI), send(frame(BULK, bytes(1000), MEBI))),
    "bulk, then it closes": steps(bulk(3 * MEBI // 2, bytes(MEBI)), hang_up),
    "bulk, then it shuts the window down": steps(bulk(3 * MEBI // 2, bytes(MEBI)), shut_down),
}
# Answers in parts. Without the extension all of them are violations.
PARTS = {
    "parts of 2^40 bytes": flip(part(OK, 1 << 40, PART)),
    "parts over the maximum": flip(part(OK, MAXIMUM + 1, PART)),
    "parts of nothing": flip(part(OK, 0, PART)),
    "a first part longer than the whole": flip(part(OK, 2999, PART)),
    "a first part of no bytes": flip(first(0, 9000)),
    "a first part of 1 byte": flip(first(1, 9000)),
    "a first part of 2,047 bytes": steps(flip(first(2047, 5047)), go_on, flip(part(BULK, 2047, PART))),
    "a first part with reserved bytes": flip(first(3000, 3000, zero=1)),
    "a first part with flags 3": flip(first(3000, 9000, flags=3)),
    "a first part with flags 6": flip(first(3000, 9000, flags=6)),
    "a first part whose descriptors never came": flip(first(3000, 9000, fds=1)),
    "a first part with 17 descriptors": flip(first(3000, 9000, fds=17)),
    "a first part of type BULK": flip(part(BULK, 3000, PART)),
    "an error in parts": flip(part(ERROR, 3000, status(2, "x" * 2987))),
    "a chunk in parts": flip(part(CHUNK, 3000, PART)),
    "a request in parts": flip(part(1, 3000, PART)),
    "a part at the wrong place": later(part(BULK, 3001, PART)),
    "a part that was there before": later(part(BULK, 0, PART)),
    "a part at 2^40": later(part(BULK, 1 << 40, PART)),
    "a later part of no bytes": later(part(BULK, 3000, b"")),
    "a later part of 1 byte": later(part(BULK, 3000, b"x")),
    "a later part of 2,047 bytes": later(part(BULK, 3000, SHORT_PART)),
    "more than was announced": steps(flip(first(3000, 5000)), go_on, flip(part(BULK, 3000, PART))),
    "a later part of type RESPONSE": later(part(OK, 3000, PART)),
    "a later part of type CHUNK": later(part(CHUNK, 3000, PART)),
    "a later part that says descriptors": later(part(BULK, 3000, PART, fds=1)),
    "a later part with descriptors": steps(send(frame(ATTACH, b"\1"), 1), later(part(BULK, 3000, PART, fds=1))),
    "a later part with reserved bytes": later(part(BULK, 3000, PART, zero=1 << 31)),
    "a later part with flags 0": later(part(BULK, 3000, PART, flags=0)),
    "a later part with flags 3": later(part(BULK, 3000, PART, flags=3)),
    "a later datagram of 15 bytes": later(part(BULK, 3000, b"")[:15]),
    "a later datagram longer than the window": later(b"", 0xFFFFFFF0),
    "a response where a part is due": later(struct.pack("=HBB", OK, 0, 0) + WRONG),
    "a part, then state 7": steps(flip(first(3000, 9000)), go_on, lambda line: line.state(7)),
}
# Answers in parts that are no violation, at first.
HALVES = {
    "fields in parts that do not decode": answer(OK, b"\0" + b"\xff" * 9000, way="parts"),
    "a part, then it stops": steps(flip(first(3000, 9000)), stop),
    "a part, then it closes": steps(flip(first(3000, 9000)), go_on, hang_up),
    "a part, then it shuts the window down": steps(flip(first(3000, 9000)), go_on, shut_down),
}
# What is done to a long request, of which the first part or frame came.
REQUESTS = {
    "a first part, then it stops": nothing,
    "a first part, then it closes": hang_up,
    "a first part, then it shuts the window down": shut_down,
}
# The same where the client waits for CONTINUE.
CONTINUES = {
    "a response instead of CONTINUE": answer(OK, WRONG),
    "an error instead of CONTINUE": answer(ERROR, status(2, "x")),
    "a part instead of CONTINUE": flip(first(3000, 9000)),
    "CONTINUE with more behind it": flip(GO_ON + b"x"),
    "CONTINUE with descriptors": flip_short(CONTINUE, 1, 0),
    "CONTINUE with flags": flip_short(CONTINUE, 0, FLAG_PARTS),
    "CONTINUE that is cut off": flip(GO_ON[:3]),
    "CONTINUE of nothing": flip(b""),
    "CONTINUE, then another type": steps(flip(GO_ON), Served.wait, flip_short(CHUNK, 0, 0)),
    "CONTINUE, then it stops": flip(GO_ON),
}
# Streamed answers.
STREAMS = {
    "a response to a stream": answer(OK, b"\0"),
    "CONTINUE to a stream": answer(CONTINUE, b""),
    "a request to a stream": answer(1, b""),
    "a chunk, then a response": steps(answer(CHUNK, b"x"), go_on, answer(OK, b"\0")),
    "a chunk, then half an error": steps(answer(CHUNK, b"x"), go_on, answer(ERROR, b"\2\0")),
    "a chunk, then it stops": steps(answer(CHUNK, b"x"), go_on, stop),
    "a chunk, then it closes": steps(answer(CHUNK, b"x"), go_on, hang_up),
}
STREAMS_WITH_FDS = {
    "a stream's chunk with descriptors": answer(CHUNK, b"x", fds=1),
    "a stream's end with descriptors": steps(answer(CHUNK, b"x"), go_on, answer(END, b"", fds=1)),
}
# Answers in a window that is larger than the client's maximum.
OVER = {
    "more than the maximum in the window": answer(OK, b"\0" + blob(bytes(MAXIMUM))),
    "an error over the maximum in the window": answer(ERROR, status(2, "x" * MAXIMUM)),
}
DEATHS = {
    "no answer: it dies": die,
    "bulk, then it dies": steps(bulk(3 * MEBI // 2, bytes(MEBI)), die),
    "a part, then it dies": steps(flip(first(3000, 9000)), go_on, die),
}


def hello_answer(version, maximum, extensions):
    return OK, b"\0" + struct.pack(">IQI", version, maximum, len(extensions)) + b"".join(map(blob, extensions))


# Answers to HELLO: type and payload.
HELLOS = {
    "HELLO: version 0": hello_answer(0, MEBI, []),
    "HELLO: version 2": hello_answer(2, MEBI, []),
    "HELLO: a maximum of 4,095": hello_answer(1, 4095, []),
    "HELLO: an extension that was not offered": hello_answer(1, MEBI, [b"future"]),
    "HELLO: parts, and an extension that was not offered": hello_answer(1, MEBI, [b"parts", b"future"]),
    "HELLO: an extension that is not UTF-8": hello_answer(1, MEBI, [b"\xff"]),
    "HELLO: 2^32 - 1 extensions": (OK, b"\0" + struct.pack(">IQI", 1, MEBI, 0xFFFFFFFF)),
    "HELLO: cut off": (OK, b"\0" + struct.pack(">IQ", 1, MEBI)),
    "HELLO: a status that is not 0": (OK, b"\1" + hello_answer(1, MEBI, [])[1][1:]),
    "HELLO: nothing": (OK, b""),
    "HELLO: an error of nothing": (ERROR, b""),
    "HELLO: a chunk": (CHUNK, hello_answer(1, MEBI, [])[1]),
    "HELLO: garbage": (0xDEAD, os.urandom(100)),
}
OPENED = struct.Struct(">QI")


def opened(line, fds, offset=0, length=None):
    length = line.length if length is None else length
    line.base.answer(OK, b"\0" + OPENED.pack(offset, length), fds)


def opened_whole(line):
    opened(line, both(line))


SURPRISE = json.dumps({"flipcall": {"version": 1, "extensions": ["future"]}}).encode() + b"\n"
# Answers to OPEN for a window, after which a client does without one.
OPENS = {
    "OPEN: no descriptors": lambda line: opened(line, []),
    "OPEN: the file without the socket": lambda line: opened(line, [line.memfd]),
    "OPEN: the socket without the file": lambda line: opened(line, [line.theirs.fileno()]),
    "OPEN: socket and file": lambda line: opened(line, [line.theirs.fileno(), line.memfd]),
    "OPEN: sixteen descriptors": lambda line: opened(line, [line.memfd] * 16),
    "OPEN: two sockets": lambda line: opened(line, [line.theirs.fileno()] * 2),
    "OPEN: a file that is not sealed": lambda line: opened(line, [unsealed(line.length), line.theirs.fileno()]),
    "OPEN: a file that is too small": lambda line: opened(line, both(line), length=2 * line.length),
    "OPEN: a file of 4 GiB that is not": lambda line: opened(line, both(line), length=0xFFFFF000),
    "OPEN: an offset behind the file": lambda line: opened(line, both(line), offset=line.length),
    "OPEN: an offset within a page": lambda line: opened(line, both(line), offset=8),
    "OPEN: an offset near 2^64": lambda line: opened(line, both(line), offset=2**64 - 4096),
    "OPEN: length 0 with two descriptors": lambda line: opened(line, both(line), length=0),
    "OPEN: a window of 16 bytes": lambda line: opened(line, both(line), length=16),
    "OPEN: fields that do not decode": lambda line: line.base.answer(OK, b"\0" + OPENED.pack(0, 0)[1:], both(line)),
    "OPEN: a greeting that is no JSON": steps(opened_whole, Served.wait, flip(b"{\n")),
    "OPEN: a greeting that was not offered": steps(opened_whole, Served.wait, flip(SURPRISE)),
    "OPEN: it closes instead of a greeting": steps(opened_whole, Served.wait, hang_up),
    "OPEN: it shuts the window down instead of a greeting": steps(opened_whole, Served.wait, shut_down),
}
SILENCE = {"OPEN: it stops instead of a greeting": steps(opened_whole, stop)}
# Answers to OPEN with which the connection ends.
OPENS_AT_ALL = {
    "OPEN: a chunk": lambda line: line.base.answer(CHUNK, b"", both(line)),
    "OPEN: a status that is not 0": lambda line: line.base.answer(OK, b"\1" + OPENED.pack(0, 4096), both(line)),
    "OPEN: an error with descriptors": lambda line: line.base.answer(ERROR, status(65, "full"), both(line)),
    "OPEN: a chunk and 200 KiB behind it": lambda line: SOCKET["a chunk and 200 KiB behind it"](line.base),
    "OPEN: a frame of 4 GiB": lambda line: SOCKET["a frame of 4 GiB"](line.base),
    "OPEN: it closes": lambda line: hang_up(line.base),
}


def both(line):
    return [line.memfd, line.theirs.fileno()]


def unsealed(length):
    file = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, length)
    return file


# What the tests go through.
GROUPS = {
    "any": ANY,
    "descriptors": DESCRIPTORS,
    "socket": SOCKET,
    "rights": RIGHTS,
    "window": WINDOW,
    "parts": PARTS,
    "halves": HALVES,
    "requests": REQUESTS,
    "continues": CONTINUES,
    "streams": STREAMS,
    "streams with fds": STREAMS_WITH_FDS,
    "deaths": DEATHS,
    "hello": HELLOS,
    "open": OPENS,
    "open at all": OPENS_AT_ALL,
    "over the maximum": OVER,
}
# What a method can be told to answer with, by name; some names are in two groups.
ANSWERS = {**ANY, **DESCRIPTORS, **RIGHTS, **PARTS, **HALVES, **STREAMS, **STREAMS_WITH_FDS, **DEATHS, **OVER}


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
