#!/usr/bin/env python3
"""A client of `flipcall echo` that breaks the rules of calls. After each attack an honest client must be served, and at the end the
server must have neither grown nor kept a descriptor.

Usage: rpc_hostile.py SOCKET PID SMALL

SMALL is the socket of a second server, whose messages have at most 8,192 bytes.
"""

import os
import select
import socket
import struct
import sys
import time

sys.argv, arguments = sys.argv[:1] + ["--import"], sys.argv[1:]
folder = os.path.dirname(os.path.abspath(__file__))
source = open(os.path.join(folder, "rpc_client.py")).read()
exec(source.rsplit("\nmain()", 1)[0])

PATH, PID, SMALL = arguments[0], int(arguments[1]), arguments[2]
ADD = struct.pack(">QQ", 1, 1)


def resident():
    with open(f"/proc/{PID}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def descriptors():
    return len(os.listdir(f"/proc/{PID}/fd"))


# Base connections, with which their channels would end, until the attack is over.
KEPT = []


def version1(extensions=(), path=PATH):
    wire = connect(path)
    assert hello(wire, extensions=extensions)[0] == OK
    KEPT.append(wire)
    return Socket(wire, 1)


def must_close(wire, what):
    try:
        while True:
            wire.fill()
    except (EOFError, ConnectionError):
        return
    except socket.timeout:
        raise AssertionError(f"{what}: the connection stays open")


def must_shut(window, what):
    give_up = time.monotonic() + 20
    while window.word.value != 2:
        assert time.monotonic() < give_up, f"{what}: the window stays open, state {window.word.value}"
        time.sleep(0.002)
    must_close(window.wire, what)
    window.close()


def honest(what):
    base = version1()
    assert call(base, 2, ADD)[0] == "ok", what
    window = open_channel(base, 4096)
    assert call(window, 2, ADD)[0] == "ok", what
    window.close()
    window.wire.sock.close()
    base.wire.sock.close()
    while KEPT:
        KEPT.pop().sock.close()
    print("held:", what)


def lengths():
    for tag in (1, 2, HELLO, OPEN, 0x0BAD):
        wire = connect(PATH)
        wire.sock.sendall(struct.pack(">HI", tag, 0xFFFFFFFF) + b"x" * 1000)
        must_close(wire, f"a frame of 4 GiB, tag {tag:#x}")
    for line in (Socket(connect(PATH), 0), version1(), open_channel(version1(), 0)):
        assert call(line, 1, struct.pack(">I", 0xFFFFFFFF) + b"x")[:2] == ("error", 2), "a length of 4 GiB"
        assert call(line, 5, b"\1" + struct.pack(">I", 0xFFFFFFFF))[:2] == ("error", 2)
        assert call(line, 2, ADD)[0] == "ok"
    wire = connect(PATH)
    wire.send(HELLO, struct.pack(">IQI", 1, MEBI, 0xFFFFFFFF))
    assert wire.receive()[0] == ERROR, "a count of 2^32 - 1"
    honest("lengths and counts")


def request_types():
    for tag in (OK, ERROR, CHUNK, END, BULK, CONTINUE):
        wire = connect(PATH)
        wire.send(tag, b"")
        must_close(wire, f"request {tag:#x}")
    for tag in (OK, ERROR, CHUNK, END, BULK, CONTINUE, ATTACH):
        base = version1()
        window = open_channel(base, 4096)
        window.flip(struct.pack("=HBB", tag, 0, 0))
        must_shut(window, f"request {tag:#x} in a window")
        assert call(base, 2, ADD)[0] == "ok", "a channel's violation ends the channel alone"
    honest("types that are no request")


def datagrams():
    attacks = {
        "no header": b"",
        "three bytes": b"abc",
        "unknown flag": struct.pack("=HBBQ", 2, 0, 4, 0),
        "a part without the extension": part(1, 0, 2, 5000, 4000),
        "a short part without the extension": part(1, 0, 2, 5000, 8),
        "both flags": struct.pack("=HBBQ", 1, 0, 3, 100),
        "seventeen descriptors": struct.pack("=HBB", 2, 17, 0),
        "descriptors that never came": struct.pack("=HBB", 8, 1, 0) + bytes(8),
        "bulk of nothing": struct.pack("=HBBQ", 1, 0, 1, 0),
        "bulk over the maximum": struct.pack("=HBBQ", 1, 0, 1, 1 << 40),
        "bulk without a length": struct.pack("=HBB", 1, 0, 1),
        "bulk with more than a length": struct.pack("=HBBQ", 1, 0, 1, 100) + b"x",
    }
    for what, datagram in attacks.items():
        base = version1()
        window = open_channel(base, 4096)
        window.flip(datagram)
        must_shut(window, what)
        assert call(base, 2, ADD)[0] == "ok", what
    base = version1()
    window = open_channel(base, 4096)
    window.map[4:8] = struct.pack("=I", 0xFFFFFFF0)
    window.word.value = 1
    LIBC.syscall(SYS_FUTEX, ctypes.byref(window.word), FUTEX_WAKE, 1, None, None, 0)
    must_shut(window, "a datagram longer than the window")
    honest("datagrams that are no message")


def bulk():
    for what, sizes, announced in (
        ("short first frame", [100, MEBI], MEBI + 100),
        ("long frame", [200], 100),
        ("an empty frame", [0], 100),
    ):
        window = open_channel(version1(), 4096)
        window.flip(struct.pack("=HBBQ", 1, 0, 1, announced))
        for size in sizes:
            try:
                window.wire.send(BULK, bytes(size))
            except ConnectionError:
                pass
        must_shut(window, f"bulk: {what}")
    window = open_channel(version1(), 4096)
    window.flip(struct.pack("=HBBQ", 1, 0, 1, 100))
    window.wire.send(1, bytes(100))
    must_shut(window, "another frame where bulk is due")
    window = open_channel(version1(), 4096)
    window.flip(struct.pack("=HBBQ", 1, 0, 1, 5000))
    window.word.value = 2
    time.sleep(0.3)
    window.close()
    window = open_channel(version1(), 4096)
    window.flip(struct.pack("=HBBQ", 3, 0, 1, 5000))
    begun = time.monotonic()
    window.wire.send(BULK, struct.pack(">Q", 200_000_000) + bytes(4992))
    assert window.receive()[0] == ERROR and time.monotonic() - begun < 20
    window = open_channel(version1(), 4096)
    window.wire.send(BULK, b"unannounced")
    assert call(window, 2, ADD)[0] == "ok", "nobody looks before the next transfer"
    window.flip(struct.pack("=HBBQ", 1, 0, 1, 100))
    try:
        window.wire.send(BULK, bytes(100))
    except ConnectionError:
        pass  # it looked before we sent
    must_shut(window, "unannounced bytes")
    honest("bulk")


def part(tag, fds, flags, number, length, zero=0):
    return struct.pack("=HBBIQ", tag, fds, flags, zero, number) + bytes(length)


def parts():
    first = part(1, 0, 2, 9000, 4000)
    attacks = {
        "a short first part": [part(1, 0, 2, 9000, 8)],
        "a first part of 2,047 bytes": [part(1, 0, 2, 9000, 2047)],
        "no payload": [part(1, 0, 2, 0, 100)],
        "a payload over the maximum": [part(1, 0, 2, 1 << 40, 4000)],
        "more than was announced": [part(1, 0, 2, 3999, 4000)],
        "both flags": [part(1, 0, 3, 9000, 4000)],
        "an unknown flag beside it": [part(1, 0, 6, 9000, 4000)],
        "something in the four zeroes": [part(1, 0, 2, 9000, 4000, zero=1)],
        "a type that is no request": [part(CONTINUE, 0, 2, 9000, 4000)],
        "a part as a request": [part(BULK, 0, 2, 9000, 4000)],
        "an error in parts": [part(ERROR, 0, 2, 9000, 4000)],
        "descriptors that never came": [part(8, 1, 2, 9000, 4000)],
        "seventeen descriptors": [part(8, 17, 2, 9000, 4000)],
        "the same part again": [first, part(BULK, 0, 2, 0, 4000)],
        "a gap": [first, part(BULK, 0, 2, 4001, 4000)],
        "an offset far beyond": [first, part(BULK, 0, 2, (1 << 64) - 1, 4000)],
        "an empty part": [first, part(BULK, 0, 2, 4000, 0)],
        "less than the header of a part": [first, b"123456789012345"],
        "nothing": [first, b""],
        "a short part in the middle": [first, part(BULK, 0, 2, 4000, 2047)],
        "more than is left": [first, part(BULK, 0, 2, 4000, 4000), part(BULK, 0, 2, 8000, 1001)],
        "a later part of another type": [first, part(1, 0, 2, 4000, 4000)],
        "a later part without its flag": [first, part(BULK, 0, 0, 4000, 4000)],
        "a later part with descriptors": [first, part(BULK, 1, 2, 4000, 4000)],
        "a later part with something in the four zeroes": [first, part(BULK, 0, 2, 4000, 4000, zero=1 << 31)],
        "another request in the middle": [first, struct.pack("=HBB", 2, 0, 0) + bytes(8) + ADD],
    }
    for what, datagrams in attacks.items():
        base = version1([b"parts"])
        window = open_channel(base, 4096, parts=True)
        for datagram in datagrams[:-1]:
            window.flip(datagram)
            assert window.wait() == struct.pack("=HBB", CONTINUE, 0, 0), what
        window.flip(datagrams[-1])
        must_shut(window, what)
        assert call(base, 2, ADD)[0] == "ok", what
    # A deadline passes inside a payload, once it is known.
    window = open_channel(version1([b"parts"]), 4096, parts=True)
    window.flip(part(3, 0, 2, 9000, 0) + struct.pack(">Q", 100_000_000) + bytes(3992))
    assert window.wait() == struct.pack("=HBB", CONTINUE, 0, 0)
    must_shut(window, "a deadline inside a payload")
    # An answer in parts whose receiver does not go on as it should.
    for what, answer in (("CONTINUE with a payload", b"x"), ("no CONTINUE", None)):
        window = open_channel(version1([b"parts"]), 4096, parts=True)
        window.send(1, blob(bytes(10_000)))
        assert window.wait()[3] == 2
        window.flip(struct.pack("=HBB", CONTINUE if answer else 1, 0, 0) + (answer or b""))
        must_shut(window, what)
    # A window that is shut down in the middle, by a client that is in the middle of sending and of receiving.
    for request in (part(1, 0, 2, 9000, 4000), None):
        window = open_channel(version1([b"parts"]), 4096, parts=True)
        window.flip(request) if request else window.send(1, blob(bytes(10_000)))
        window.wait()
        window.word.value = 2
        LIBC.syscall(SYS_FUTEX, ctypes.byref(window.word), FUTEX_WAKE, 1, None, None, 0)
        time.sleep(0.1)
        window.close()
    honest("parts")


def over_the_maximum():
    for size in (8192, 8193):
        base = version1([b"parts"], SMALL)
        window = open_channel(base, 65536, parts=True)
        data = bytes(size - 12)
        window.send(1, blob(data))
        if size == 8193:
            must_shut(window, "a request over the maximum that fits the window")
        else:
            tag, answer, _ = window.receive()
            assert tag == OK and answer == b"\0" + blob(data), "a request of the maximum"
        window = open_channel(base, 4096, parts=True)
        window.flip(part(1, 0, 2, size, 4000))
        if size == 8193:
            must_shut(window, "parts over the maximum")
        else:
            assert window.wait() == struct.pack("=HBB", CONTINUE, 0, 0)
        assert call(base, 2, ADD)[0] == "ok"
    honest("requests over the maximum")


def shuts_down_inside_a_frame():
    """The server waits inside the first frame of its answer, which nobody reads, when the window goes without its socket."""
    window = open_channel(version1(), 4096)
    window.send(1, blob(bytes(4 * MEBI)))
    window.wait()
    time.sleep(0.3)
    window.word.value = 2
    hang_up = select.poll()
    hang_up.register(window.wire.sock, 0)
    assert hang_up.poll(10_000), "a send that waits does not look at the window"
    window.close()
    honest("a window shut down inside a frame")


def rights(sock, data, fds):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def fds():
    null = os.open("/dev/null", os.O_RDWR)
    add = struct.pack(">HIQQQ", 2, 24, 0, 1, 1)
    attach = struct.pack(">HIB", ATTACH, 1, 1)
    attacks = {
        "descriptors without ATTACH": [(add, 1)],
        "253 descriptors": [(attach, 253)],
        "two for one": [(attach, 2)],
        "ATTACH without descriptors": [(attach + add, 0)],
        "on the wrong byte": [(attach[:3], 0), (attach[3:] + add, 1)],
        "half a header": [(add[:3], 1)],
        "ATTACH of none": [(struct.pack(">HIB", ATTACH, 1, 0) + add, 1)],
        "ATTACH of seventeen": [(struct.pack(">HIB", ATTACH, 1, 17), 17)],
        "two ATTACHes": [(attach, 1), (attach + add, 1)],
    }
    for what, parts in attacks.items():
        for make in (version1, lambda: open_channel(version1(), 0)):
            line = make()
            try:
                for data, count in parts:
                    rights(line.wire.sock, data, [null] * count) if count else line.wire.sock.sendall(data)
                    time.sleep(0.02)
                line.wire.sock.shutdown(socket.SHUT_WR)
            except (ConnectionError, OSError):
                pass
            must_close(line.wire, what)
    base = Socket(connect(PATH), 0)
    try:
        rights(base.wire.sock, struct.pack(">HIQQ", 2, 16, 1, 1), [null])
        assert base.wire.receive()[0] == OK, "without HELLO the kernel throws descriptors away"
    except PermissionError:
        pass
    for tag in (4, 2):
        line = version1()
        assert call(line, tag, ADD[:8] if tag == 4 else ADD, fds=[null])[:2] == ("error", 2)
    window = open_channel(version1(), 4096)
    rights(window.wire.sock, attach, [null] * 1)
    window.flip(struct.pack("=HBB", 8, 2, 0) + bytes(8))
    must_shut(window, "fewer descriptors than the message says")
    os.close(null)
    honest("descriptors")


def opens():
    base, got = version1(), 0
    wanted = 10_000 if os.environ.get("FLIPCALL_FULL") else 1_000
    kept = []
    for _ in range(wanted):
        verdict = call(base, OPEN, struct.pack(">I", 4096))
        if verdict[0] == "ok":
            got += 1
            kept += verdict[2]
        else:
            assert verdict[1] == 65 and verdict[3] == "open", verdict
    assert 1 <= got <= 64, got
    for fd in kept:
        os.close(fd)
    base.wire.sock.close()
    time.sleep(0.3)
    honest(f"{wanted} OPENs, of which {got} were granted")


def never_reads():
    wire = connect(PATH)
    wire.sock.setblocking(False)
    request = struct.pack(">HI", 1, 4 + 60_000) + blob(bytes(60_000))
    sent = 0
    try:
        while sent < 64 * MEBI:
            sent += wire.sock.send(request)
    except BlockingIOError:
        pass
    assert sent < 8 * MEBI, "the server stops reading while its answer is not taken"
    honest("answers that nobody reads")
    wire.sock.close()


def no_continue():
    window = open_channel(version1(), 4096)
    window.send(4, struct.pack(">II", 1000, 100), left=100_000_000)
    assert window.receive()[0] == CHUNK
    must_shut(window, "no CONTINUE a second after the deadline")
    window = open_channel(version1(), 4096)
    window.send(4, struct.pack(">II", 1000, 100))
    assert window.receive()[0] == CHUNK
    window.flip(struct.pack("=HBB", 2, 0, 0) + bytes(24))
    must_shut(window, "another request where CONTINUE is due")
    honest("streams")


def half_open():
    base = version1()
    for _ in range(3):
        verdict, answer, fds_ = call(base, OPEN, struct.pack(">I", 4096))
        assert verdict == "ok"
        for fd in fds_:
            os.close(fd)
    base.wire.sock.close()
    honest("channels that never shook hands")


def main():
    honest("nothing yet")
    time.sleep(0.2)
    memory, files = resident(), descriptors()
    one_line = (lengths, request_types, datagrams, bulk, parts, over_the_maximum, shuts_down_inside_a_frame, fds)
    for attack in (*one_line, opens, never_reads, no_continue, half_open):
        attack()
    give_up = time.monotonic() + 15
    while descriptors() > files + 2 and time.monotonic() < give_up:
        time.sleep(0.1)
    assert descriptors() <= files + 2, f"{descriptors() - files} descriptors are left"
    grown = resident() - memory
    assert grown < 64 * 1024, f"{grown} KiB more"
    print(f"all held; {grown} KiB more than before")


main()
