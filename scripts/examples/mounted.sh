#!/bin/sh
# The tree through a mount, with nothing but a shell and its usual programs:
#
#   mount -t 9p -o trans=tcp,port=5640,version=9p2000.L 127.0.0.1 /mnt
#   scripts/examples/mounted.sh /mnt [BRANCH]
#
# Commits a file in a transaction, sees the branch move, and lists what changed.
set -eu
tree=${1:?the folder the tree is mounted at}
branch=$tree/branch/${2:-example}
mkdir -p "$branch"

# Somebody waits for the branch to move: each line is a new head.
seen=$(mktemp)
cat "$branch/head.live" >"$seen" &
watcher=$!
trap 'kill "$watcher" 2>/dev/null || :; rm -f "$seen"' EXIT

# A transaction is a directory; its files are the branch's, and nobody else sees
# what becomes of them.
tx=$branch/transactions/example.$$
before=$(cat "$branch/head")
mkdir "$tx"
mkdir -p "$tx/rw/notes"
date >>"$tx/rw/notes/dates"
echo 'a date' >"$tx/msg"
# Writing this fails if the commit does: see $tx/conflicts then.
echo commit >"$tx/ctl"

after=$(cat "$branch/head")
echo "$branch is at $after"
cat "$branch/ro/notes/dates"
tries=0
until grep -q "$after" "$seen"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || exit 1
    sleep 0.1
done
echo 'the watch has seen it'
if [ -n "$before" ]; then
    # Every commit is a directory, for ever.
    cat "$branch/diff/$before"
    ls "$tree/snapshots/$after/ro"
fi
