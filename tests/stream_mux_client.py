"""A mux client that knows the wire format and nothing else. Usage: stream_mux_client.py SOCKET [plain]"""
import socket
import struct
import sys
import time

HELLO, OPEN, ACCEPT, REFUSE, CREDIT, END, RESET, GOODBYE = range(8)
MAX, CHANNELS, GRANT = 1000, 8, 100_000


class Closed(Exception):
    pass


class Client:
    def __init__(self, hello=True, max_frame=MAX, wait=True):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(10)
        self.s.connect(sys.argv[1])
        self.credit = {}
        if hello:
            self.send(control(HELLO, struct.pack(">BIH", 1, max_frame, CHANNELS)))
        if wait:
            op, body = self.control()
            assert op == HELLO and body[0] == 1, (op, body)
            self.peer_max, self.peer_channels = struct.unpack(">IH", body[1:])

    def send(self, *frames):
        self.s.sendall(b"".join(frames))

    def frame(self):
        tag, length = struct.unpack(">HI", self.exactly(6))
        return tag, self.exactly(length)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                piece = self.s.recv(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed
            data += piece
        return data

    def control(self):
        tag, payload = self.frame()
        assert tag == 0, (tag, payload)
        return payload[0], payload[1:]

    def expect(self, op, id=None, rest=None):
        """The next control frame of this operation; CREDIT frames in between are counted."""
        while True:
            got, body = self.control()
            if got == CREDIT and op != CREDIT:
                self.count(body)
                continue
            assert got == op, f"operation {got} {body} instead of {op}"
            if id is not None:
                assert struct.unpack(">H", body[:2])[0] == id, body
            if rest is not None:
                assert body[2:] == rest, body
            return body

    def count(self, body):
        id, add = struct.unpack(">HI", body)
        self.credit[id] = self.credit.get(id, 0) + add

    def data(self, id):
        while True:
            tag, payload = self.frame()
            if tag == 0 and payload[0] == CREDIT:
                self.count(payload[1:])
                continue
            assert tag == id, (tag, payload[:20])
            return payload

    def open(self, id, name, credit=GRANT):
        self.send(opening(id, name, credit))
        self.credit[id] = struct.unpack(">I", self.expect(ACCEPT, id)[2:])[0]

    def goodbye(self, reason):
        """The peer must say goodbye and close."""
        while True:
            tag, payload = self.frame()
            if tag == 0 and payload[0] == GOODBYE:
                assert payload[1] == reason, payload
                length = struct.unpack(">H", payload[2:4])[0]
                assert payload[4:].decode() is not None and len(payload) == 4 + length
                break
        try:
            self.frame()
            raise AssertionError("frames after a goodbye")
        except Closed:
            self.s.close()

    def alive(self, id=101):
        """Everything still works, and nothing unexpected has come."""
        self.open(id, "echo")
        self.send(frame(id, b"alive"), control(END, short(id)))
        assert self.data(id) == b"alive"
        self.expect(END, id)


def frame(tag, payload):
    return struct.pack(">HI", tag, len(payload)) + payload


def control(op, body):
    return frame(0, bytes([op]) + body)


def short(*numbers):
    return struct.pack(f">{len(numbers)}H", *numbers)


def opening(id, name, credit=GRANT):
    name = name.encode()
    return control(OPEN, struct.pack(">HIH", id, credit, len(name)) + name)


def accept(id, credit=GRANT):
    return control(ACCEPT, struct.pack(">HI", id, credit))


def refuse(id, reason=3):
    return control(REFUSE, struct.pack(">HB", id, reason))


def credit(id, add=1):
    return control(CREDIT, struct.pack(">HI", id, add))


def end(id):
    return control(END, short(id))


def reset(id, reason=5):
    return control(RESET, struct.pack(">HB", id, reason))


def violation(*frames, prepare=None, reason=1):
    client = Client()
    if prepare:
        prepare(client)
    client.send(*frames)
    client.goodbye(reason)


def test_hello_violations():
    for first in [
        frame(5, b"data"),
        opening(1, "echo"),
        credit(1),
        control(HELLO, struct.pack(">BIH", 2, MAX, 1)),
        control(HELLO, struct.pack(">BIH", 1, 0, 1)),
        control(HELLO, struct.pack(">BIH", 1, 2**31 - 16, 1)),
        control(HELLO, struct.pack(">BIH", 1, MAX, 4097)),
        control(HELLO, struct.pack(">BI", 1, MAX)),
        frame(0, b""),
    ]:
        client = Client(hello=False)
        client.send(first)
        client.goodbye(1)
    violation(control(HELLO, struct.pack(">BIH", 1, MAX, 1)))


def test_malformed_control():
    for bad in [
        frame(0, b""),
        frame(0, bytes([8])),
        frame(0, bytes([END, 0])),
        frame(0, bytes([END, 0, 1, 0])),
        control(OPEN, struct.pack(">HIH", 1, GRANT, 0)),
        control(OPEN, struct.pack(">HIH", 1, GRANT, 5) + b"echo"),
        control(OPEN, struct.pack(">HIH", 1, GRANT, 2) + b"\xff\xfe"),
        control(OPEN, struct.pack(">HIH", 1, GRANT, 256) + b"x" * 256),
        control(GOODBYE, struct.pack(">BH", 0, 256) + b"x" * 256),
        frame(0, bytes([GOODBYE]) + bytes(300)),
        opening(1, "echo", MAX + 15),
        opening(1, "echo", 0),
        opening(1, "echo", 2**31 + 1),
        credit(1, 0),
    ]:
        violation(bad)


def test_too_long():
    client = Client()
    client.open(1, "sink")
    client.send(struct.pack(">HI", 1, client.peer_max + 1))
    client.goodbye(1)
    client = Client()
    client.send(struct.pack(">HI", 1, 2**32 - 1))
    client.goodbye(1)


def test_idle():
    for id in (0, 2):
        violation(opening(id, "echo"))
    for id in (1, 2):
        violation(accept(id))
        violation(refuse(id))
        violation(frame(id, b"x"))
        violation(end(id))
    client = Client()
    client.send(credit(1), reset(1), credit(2, 5), reset(2), credit(0), reset(0))
    client.alive()


def test_offered():
    # One write, so that the frames come before the answer.
    for second in [opening(1, "echo"), accept(1), refuse(1), frame(1, b"x"), end(1), reset(1)]:
        violation(opening(1, "echo"), second)
    client = Client()
    client.send(opening(1, "echo"), credit(1, 5))
    client.expect(ACCEPT, 1)
    client.alive()


def peer_opens(client):
    client.open(1, "open:back")
    body = client.expect(OPEN, 2)
    assert body[8:] == b"back", body


def test_opening():
    for frames in [opening(2, "echo"), frame(2, b"x"), end(2), accept(2, 0), accept(2, 16)]:
        violation(frames, prepare=peer_opens)
    client = Client()
    peer_opens(client)
    client.send(credit(2, 7), reset(2), accept(2))
    client.send(frame(2, b"hello"), end(2))
    assert client.data(2) == b"hello"
    client.expect(END, 2)
    client.send(end(1))
    client.expect(END, 1)
    # The lowest idle id again.
    client.open(1, "open:again")
    assert client.expect(OPEN, 2)[8:] == b"again"
    client.send(refuse(2))
    client.alive()


def test_open():
    def prepare(client):
        client.open(1, "sink")

    for frames in [opening(1, "echo"), accept(1), refuse(1)]:
        violation(frames, prepare=prepare)
    violation(end(1), end(1), prepare=lambda client: client.open(1, "stall"))
    violation(end(1), frame(1, b"x"), prepare=lambda client: client.open(1, "source:5000000", MAX + 16))
    violation(credit(1, 2**31), prepare=prepare)
    client = Client()
    client.open(1, "sink")
    client.send(credit(1, 2**31 - GRANT))
    client.send(reset(1, 77))
    client.expect(RESET, 1, bytes([77]))
    client.alive()


def test_over_credit():
    client = Client()
    client.open(1, "stall")
    left = client.credit[1]
    while left >= 16:
        size = min(left - 16, client.peer_max)
        client.send(frame(1, bytes(size)))
        left -= size + 16
    client.alive()
    client.send(frame(1, b""))
    client.goodbye(1)


def test_resetting():
    def prepare(client):
        client.open(1, "reset")
        client.send(frame(1, b"x"))
        client.expect(RESET, 1, bytes([5]))

    for frames in [opening(1, "echo"), accept(1), refuse(1)]:
        violation(frames, prepare=prepare)
    violation(struct.pack(">HI", 1, 2**20), prepare=prepare)
    for last in (end(1), reset(1)):
        client = Client()
        prepare(client)
        client.send(frame(1, bytes(1000)), frame(1, b""), credit(1, 9), last)
        client.send(credit(1, 9), reset(1))
        client.alive(1)


def test_reuse():
    """The id after every way to close it, and late CREDIT and RESET of the former use."""
    client = Client()
    for round in range(50):
        client.open(1, "echo")
        client.send(frame(1, b"%d" % round), end(1))
        assert client.data(1) == b"%d" % round
        client.expect(END, 1)
        client.send(credit(1, 50), reset(1))
        client.open(1, "sink")
        client.send(frame(1, b"x"), reset(1, 9))
        client.expect(RESET, 1, bytes([9]))
        client.send(opening(1, "no such name"))
        client.expect(REFUSE, 1, bytes([3]))
        client.open(1, "reset")
        client.send(frame(1, b"x"))
        client.expect(RESET, 1, bytes([5]))
        client.send(end(1))
        client.open(1, "source:10", MAX + 16)
        client.send(end(1))
        assert client.data(1) == bytes(range(10))
        client.expect(END, 1)
    # Our RESET after the peer's END makes the id idle at once.
    client.open(1, "source:3")
    assert client.data(1) == bytes(range(3))
    client.expect(END, 1)
    client.send(reset(1))
    client.alive(1)


def test_credit():
    """A source stops exactly at its credit and goes on with more; credit for a sink comes without a threshold."""
    client = Client()
    client.open(1, "source:10000", 2 * (MAX + 16))
    got = client.data(1) + client.data(1)
    client.alive()
    client.send(credit(1, 10 + 16))
    client.alive()
    client.send(credit(1, MAX + 16))
    while len(got) < 10000:
        piece = client.data(1)
        got += piece
        client.send(credit(1, len(piece) + 16))
    assert got == bytes(i % 251 for i in range(10000))
    client.expect(END, 1)
    client.send(end(1))
    client.open(1, "sink")
    first, sent = client.credit[1], 0
    while sent < 20 * first:
        while client.credit[1] < client.peer_max + 16:
            client.count(client.expect(CREDIT, 1))
        client.send(frame(1, bytes(client.peer_max)))
        client.credit[1] -= client.peer_max + 16
        sent += client.peer_max
    assert client.credit[1] <= 2**31
    # Empty frames cost 16 and come back as they are.
    client.open(3, "echo")
    client.send(frame(3, b"") * 3, end(3))
    assert [client.data(3) for _ in range(3)] == [b""] * 3
    client.expect(END, 3)


def test_pieces():
    client = Client()
    client.open(1, "echo")
    client.send(frame(1, b"p" * 2500), end(1))
    assert [len(client.data(1)) for _ in range(3)] == [1000, 1000, 500]
    client.expect(END, 1)


def test_too_many():
    client = Client()
    for number in range(client.peer_channels):
        client.open(2 * number + 1, "sink")
    id = 2 * client.peer_channels + 1
    for _ in range(10000):
        client.send(opening(id, "sink"))
        client.expect(REFUSE, id, bytes([4]))
    client.send(end(1))
    client.expect(END, 1)
    client.open(id, "sink")


def test_names():
    client = Client()
    for name in ["", "Echo", "source:", "source:x", "source:-1", f"source:{2**64}", "open:", "é" * 127]:
        if name:
            client.send(opening(1, name))
            client.expect(REFUSE, 1, bytes([3]))
    client.open(1, "source:0")
    client.expect(END, 1)


def test_flood():
    """Control frames whose answers nobody reads: the peer cuts us off and its memory stays bounded."""
    client = Client()
    client.s.settimeout(30)
    try:
        for _ in range(2000):
            client.send(opening(1, "no such name") * 1000)
    except (BrokenPipeError, ConnectionResetError, socket.timeout):
        pass
    else:
        # Refusals may be answered as fast as they come only if somebody reads them.
        raise AssertionError("a flood of unread answers was tolerated")


def test_goodbye_from_us():
    client = Client()
    client.open(1, "echo")
    client.send(control(GOODBYE, struct.pack(">BH", 0, 3) + b"bye"))
    try:
        client.frame()
        raise AssertionError("frames after our goodbye")
    except Closed:
        pass


def test_drip():
    """Every byte in a write of its own."""
    client = Client()
    for byte in opening(1, "echo"):
        client.send(bytes([byte]))
    client.expect(ACCEPT, 1)
    for byte in frame(1, b"slow") + end(1):
        client.send(bytes([byte]))
    assert client.data(1) == b"slow"
    client.expect(END, 1)


def plain():
    client = Client(hello=False, wait=False)
    client.send(frame(0, b"zero"), frame(7, b"seven"), frame(9, b""), frame(65535, bytes(65536)))
    assert client.frame() == (0, b"zero")
    assert client.frame() == (7, b"seven")
    assert client.frame() == (65535, bytes(65536))
    client.send(struct.pack(">HI", 1, 65537))
    try:
        client.frame()
        raise AssertionError("a frame over the maximum")
    except Closed:
        pass
    # It stops reading while nobody reads what it returns.
    client = Client(hello=False, wait=False)
    client.s.settimeout(1)
    sent = 0
    try:
        while sent < 64 << 20:
            client.send(frame(1, bytes(65536)))
            sent += 65536
    except socket.timeout:
        pass
    assert sent < 4 << 20, sent
    print(f"plain mode stops reading after {sent} bytes")


if __name__ == "__main__":
    if sys.argv[2:] == ["plain"]:
        plain()
    else:
        tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
        for name, test in tests:
            started = time.monotonic()
            try:
                test()
            except BaseException:
                print(f"{name} failed")
                raise
            print(f"{name} ok {time.monotonic() - started:.2f} s")
