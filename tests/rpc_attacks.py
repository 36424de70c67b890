"""The attacks of rpc_server.py, which runs this in its own namespace: what they consist of, and a table for each place where one fits."""

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
# Wrong answers where descriptors may come.
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
# What is done to it where the client waits for CONTINUE.
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


def over_large(line):
    large = Served(line.base, 17 * MEBI)
    opened_whole(large)
    large.give_away()
    start(serve_channel, large, True)


def lingering(kind):
    """A socket that is no unix stream; the last close of a TCP one takes 20 s."""
    if kind != "TCP":
        return socket.socketpair(socket.AF_UNIX, kind)
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other = listener.accept()[0]
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
    return one, other


KEPT = []


def opened_with(kind, as_file):
    """A channel with such a socket in the place of the file or the socket."""

    def open_it(line):
        sent, kept = lingering(kind)
        KEPT.append(kept)
        other = line.theirs.fileno() if as_file else line.memfd
        opened(line, [sent.fileno(), other] if as_file else [other, sent.fileno()])
        # It may be the last close, after all.
        threading.Thread(target=sent.close, daemon=True).start()

    return open_it


# Answers to OPEN for a window, after which a client does without one.
OPENS = {
    "OPEN: no descriptors": lambda line: opened(line, []),
    "OPEN: the file without the socket": lambda line: opened(line, [line.memfd]),
    "OPEN: the socket without the file": lambda line: opened(line, [line.theirs.fileno()]),
    "OPEN: socket and file": lambda line: opened(line, [line.theirs.fileno(), line.memfd]),
    "OPEN: a TCP socket that lingers for a file": opened_with("TCP", True),
    "OPEN: a TCP socket that lingers for a socket": opened_with("TCP", False),
    "OPEN: a SEQPACKET socket": opened_with(socket.SOCK_SEQPACKET, False),
    "OPEN: a DGRAM socket": opened_with(socket.SOCK_DGRAM, False),
    "OPEN: sixteen descriptors": lambda line: opened(line, [line.memfd] * 16),
    "OPEN: two sockets": lambda line: opened(line, [line.theirs.fileno()] * 2),
    "OPEN: a file that is not sealed": lambda line: opened(line, [unsealed(line.length), line.theirs.fileno()]),
    "OPEN: a file that is too small": lambda line: opened(line, both(line), length=2 * line.length),
    "OPEN: a file of 4 GiB that is not": lambda line: opened(line, both(line), length=0xFFFFF000),
    "OPEN: an offset behind the file": lambda line: opened(line, both(line), offset=line.length),
    "OPEN: an offset within a page": lambda line: opened(line, both(line), offset=8),
    "OPEN: an offset near 2^64": lambda line: opened(line, both(line), offset=2**64 - 4096),
    "OPEN: length 0 with two descriptors": lambda line: opened(line, both(line), length=0),
    "OPEN: a window of 17 MiB": over_large,
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
