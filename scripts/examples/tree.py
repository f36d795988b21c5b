#!/usr/bin/env python3
"""The tree from Python, with no library: 9P2000 is small.

    scripts/examples/tree.py HOST:PORT [BRANCH]

Commits a file in a transaction, reads it back, and waits for the branch to move.
"""

import socket
import struct
import sys

NOFID, NOTAG = 0xFFFFFFFF, 0xFFFF
VERSION, ATTACH, ERROR, WALK, OPEN, CREATE = 100, 104, 107, 110, 112, 114
READ, WRITE, CLUNK = 116, 118, 120
OREAD, OWRITE, DMDIR = 0, 1, 0x80000000


def text(string):
    data = string.encode()
    return struct.pack("<H", len(data)) + data


class Failed(Exception):
    """What the server says."""


class Tree:
    """A connection to a server; one request at a time."""

    def __init__(self, address, user="example"):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.fids = 0
        answer = self.ask(VERSION, struct.pack("<I", 65536) + text("9P2000"), NOTAG)
        self.msize = struct.unpack_from("<I", answer)[0]
        self.ask(ATTACH, struct.pack("<II", 0, NOFID) + text(user) + text(""))

    def ask(self, kind, body, tag=0):
        """Sends a request and returns the body of its answer."""
        self.socket.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)
        length, answer, _ = struct.unpack("<IBH", self.take(7))
        body = self.take(length - 7)
        if answer == ERROR:
            raise Failed(body[2:].decode())
        assert answer == kind + 1
        return body

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the server has gone")
            data += more
        return data

    def walk(self, path):
        """Returns a number for the file at a path."""
        names = [name for name in path.split("/") if name]
        self.fids += 1
        fid = self.fids
        body = struct.pack("<IIH", 0, fid, len(names)) + b"".join(map(text, names))
        found = struct.unpack_from("<H", self.ask(WALK, body))[0]
        if found < len(names):
            raise Failed(path + " does not exist")
        return fid

    def clunk(self, fid):
        self.ask(CLUNK, struct.pack("<I", fid))

    def open(self, path, mode):
        fid = self.walk(path)
        self.ask(OPEN, struct.pack("<IB", fid, mode))
        return fid

    def create(self, folder, name, permissions):
        fid = self.walk(folder)
        mode = OREAD if permissions & DMDIR else OWRITE
        body = struct.pack("<I", fid) + text(name) + struct.pack("<IB", permissions, mode)
        self.ask(CREATE, body)
        return fid

    def mkdir(self, folder, name):
        self.clunk(self.create(folder, name, DMDIR | 0o755))

    def pieces(self, fid):
        """Reads on and on; of a stream, for ever."""
        offset, empty = 0, 0
        # In a stream one empty read means that nothing is left out so far.
        while empty < 2:
            answer = self.ask(READ, struct.pack("<IQI", fid, offset, self.msize - 24))
            data = answer[4:]
            empty = 0 if data else empty + 1
            offset += len(data)
            if data:
                yield data

    def read(self, path):
        fid = self.open(path, OREAD)
        data = b"".join(self.pieces(fid))
        self.clunk(fid)
        return data.decode()

    def put(self, fid, data):
        for start in range(0, len(data), self.msize - 24):
            piece = data[start : start + self.msize - 24]
            self.ask(WRITE, struct.pack("<IQI", fid, start, len(piece)) + piece)
        self.clunk(fid)

    def write(self, path, data):
        self.put(self.open(path, OWRITE), data.encode())


def main(address, branch="example"):
    tree, other = Tree(address), Tree(address)
    # One that is there already stays as it is. Without a commit it is seen by
    # the connection that made it, and by no other.
    for each in (tree, other):
        each.mkdir("branch", branch)
    at = "branch/" + branch

    live = other.pieces(other.open(at + "/head.live", OREAD))
    # Without a head, a stream begins with an empty line.
    print("before:", next(live).decode().strip() or "no commit")

    tree.mkdir(at + "/transactions", "python")
    tx = at + "/transactions/python"
    tree.put(tree.create(tx + "/rw", "greeting", 0o644), b"hello from Python\n")
    tree.write(tx + "/msg", "a greeting")
    tree.write(tx + "/ctl", "commit")

    print("after:", next(live).decode().strip())
    print("head:", tree.read(at + "/head").strip())
    print(tree.read(at + "/ro/greeting"), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
