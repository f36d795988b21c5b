#!/usr/bin/env python3
"""Commits with libgit2, synced or not, as told on standard input.

Usage: libgit2.py REPOSITORY fsync|nofsync. Each line of input is a number of
commits to make on refs/heads/master, each of which changes one of the files
d00/f0 ... d09/f999 of a tree of two levels; for each commit a line with the
seconds it took is printed, then an empty line.
"""

import sys
import time

import pygit2

repository = pygit2.Repository(sys.argv[1])
if sys.argv[2] == "fsync":
    pygit2.option(pygit2.enums.Option.ENABLE_FSYNC_GITDIR, True)
who = pygit2.Signature("Bench", "bench@example.org")
branch = "refs/heads/master"
number = 0


def commit():
    global number
    number += 1
    file = number * 7 % 1000
    head = repository.lookup_reference(branch).target
    root = repository[head].tree
    blob = repository.create_blob(b"content %d of libgit2\n" % number)
    folder = "d%02d" % (file // 100)
    below = repository.TreeBuilder(root[folder])
    below.insert("f%d" % file, blob, pygit2.enums.FileMode.BLOB)
    above = repository.TreeBuilder(root)
    above.insert(folder, below.write(), pygit2.enums.FileMode.TREE)
    repository.create_commit(branch, who, who, "change", above.write(), [head])


for line in sys.stdin:
    for _ in range(int(line)):
        began = time.perf_counter()
        commit()
        print("%.9f" % (time.perf_counter() - began))
    print(flush=True)
