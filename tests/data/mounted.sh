# shellcheck shell=sh
# shellcheck disable=SC2317 # "ok" calls them
# What people do with a mounted tree, done in a guest by busybox's programs
# against the kernel's own client. HOST and PORT say where the server is.
#
# The same is done in a folder of the guest, and what is committed must be
# equal to it. Each line printed is a check; the exit status is 0 if all held.
bad=0
mode=
ok() { # ok WHAT COMMAND...
    what=$1
    shift
    if "$@" >/tmp/out 2>&1; then
        echo "ok   $mode: $what"
    else
        echo "FAIL $mode: $what"
        sed 's/^/     | /' /tmp/out
        bad=1
    fi
    cd /
}
refused() { ! "$@"; }
same() { [ "$1" = "$2" ] || { echo "expected: $1"; echo "found:    $2"; return 1; }; }
# eventually COMMAND...: within 10 seconds.
eventually() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "never: $*"; return 1; }
        sleep 0.1
    done
}

# Something to copy: names with blanks, an executable, 300 kB of bytes.
mkdir -p /tmp/src/deep/er
echo 'hello, world' >/tmp/src/hello
printf 'one\ntwo\nthree\n' >/tmp/src/deep/lines
dd if=/dev/urandom of=/tmp/src/deep/er/bytes bs=1k count=300 2>/dev/null
echo 'a name' >'/tmp/src/deep/a name'
printf '#!/bin/sh\necho run\n' >/tmp/src/run
chmod +x /tmp/src/run

# change FOLDER: what people do to files.
change() {
    cd "$1" || return 1
    cp -r /tmp/src/. . || return 1
    echo 'appended' >>hello || return 1
    echo 'new' >>deep/new || return 1
    sed -i 's/two/2/' deep/lines || return 1
    mv deep/new deep/renamed || return 1
    mkdir other || return 1
    mv deep/renamed other/moved || return 1
    cp -r deep copy || return 1
    mv copy other/copy || return 1
    rm -r other/copy/er || return 1
    rm hello || return 1
    echo 'back' >hello || return 1
    truncate -s 4 'deep/a name' || return 1
    dd if=/tmp/src/hello of=deep/er/bytes bs=1 seek=1000 conv=notrunc 2>/dev/null || return 1
}

# The transaction of DataKit's documentation, by shell alone.
documented() {
    cd "/mnt/branch/$1" || return 1
    mkdir transactions/foo || return 1
    echo somedata >transactions/foo/rw/somefile || return 1
    echo 'My commit' >transactions/foo/msg || return 1
    echo commit >transactions/foo/ctl || return 1
    same somedata "$(cat ro/somefile)" || return 1
    [ ! -e transactions/foo ]
}

conflict() {
    cd "/mnt/branch/$1/transactions" || return 1
    mkdir ours theirs || return 1
    echo ours >ours/rw/contested || return 1
    echo theirs >theirs/rw/contested || return 1
    echo commit >theirs/ctl || return 1
    # The conflict is told, and the branch stays as it is.
    if echo commit >ours/ctl; then return 1; fi
    same theirs "$(cat ../ro/contested)" || return 1
    echo close >ours/ctl
}

# live BRANCH: a stream in the background shows a commit, and is killed.
live() {
    cat "/mnt/branch/$1/head.live" >/tmp/live &
    reader=$!
    eventually test -s /tmp/live || return 1
    mkdir "/mnt/branch/$1/transactions/live" || return 1
    date >"/mnt/branch/$1/transactions/live/rw/date" || return 1
    echo commit >"/mnt/branch/$1/transactions/live/ctl" || return 1
    head=$(cat "/mnt/branch/$1/head") || return 1
    eventually grep -q "$head" /tmp/live || return 1
    kill "$reader" || return 1
    wait "$reader"
    same 143 "$?" || return 1
    # The mount goes on.
    same "$head" "$(cat "/mnt/branch/$1/head")"
}

number=0
try() { # try VERSION OPTIONS
    number=$((number + 1))
    branch=b$number
    at=/mnt/branch/$branch
    mode="$1${2:+,$2}"
    ok "mount" mount -t 9p -o "trans=tcp,port=$PORT,version=$1,msize=131072${2:+,$2}" "$HOST" /mnt
    ok "mkdir makes a branch" mkdir $at
    ok "a transaction begins" mkdir $at/transactions/t
    ok "cp -r, >>, sed -i, mv, rm -r, truncate" change $at/transactions/t/rw
    if [ "$1" != 9p2000 ]; then
        ok "ln -s" ln -s ../hello $at/transactions/t/rw/other/link
        ok "readlink" same ../hello "$(readlink $at/transactions/t/rw/other/link)"
        ok "a link is followed" same back "$(cat $at/transactions/t/rw/other/link)"
    fi
    # In the other dialects removing is recursive, as it was in DataKit.
    [ "$1" != 9p2000.L ] || ok "rmdir removes nothing with entries" refused rmdir $at/transactions/t/rw/deep
    ok "a message" eval "echo 'from a mount' >$at/transactions/t/msg"
    ok "commit" eval "echo commit >$at/transactions/t/ctl"
    case $2 in
    cache=loose | cache=fscache)
        # The kernel takes itself for the only writer: it keeps what is written
        # until it is told to write it, and what it has seen for ever.
        sync
        ok "another mount" eval "umount /mnt && mount -t 9p -o trans=tcp,port=$PORT,version=$1,$2 $HOST /mnt"
        ;;
    esac
    rm -rf /tmp/mirror
    mkdir /tmp/mirror
    (change /tmp/mirror)
    [ "$1" = 9p2000 ] || ln -s ../hello /tmp/mirror/other/link
    ok "what is committed is what was made" diff -r /tmp/mirror $at/ro
    [ "$1" = 9p2000 ] || ok "runnable files are" test -x $at/ro/run
    ok "nothing is written to what is read-only" refused sh -c "echo x >$at/ro/hello"
    ok "what is not there is not" refused cat $at/ro/none
    case $2 in
    '' | cache=none | cache=mmap)
        ok "the transaction of the documentation" documented $branch
        ok "a conflict" conflict $branch
        ok "head.live" live $branch
        ;;
    esac
    ok "df" df /mnt
    ok "a branch is renamed" mv $at /mnt/branch/renamed-$branch
    ok "umount" umount /mnt
}

echo "# Linux $(uname -r)"
for version in 9p2000.L 9p2000.u 9p2000; do try $version ''; done
for cache in none loose mmap fscache; do try 9p2000.L cache=$cache; done
exit $bad
