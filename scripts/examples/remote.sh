#!/bin/sh
# A store on another machine, from a shell, with dk:
#
#   scripts/examples/remote.sh tcp://127.0.0.1
#
# Every command of dk works on a server as it does on a repository.
set -eu
export DK_STORE="${1:?the address of a server, such as tcp://127.0.0.1}"

# One file, one commit.
echo 'hello' | dk put example:greeting -m 'a greeting'

# A transaction, which another shell on another machine could go on with.
tx=$(dk tx begin example)
date | dk tx write "$tx" now
tar c -C "$(dirname "$0")" remote.sh | dk tx import "$tx" --at scripts -
dk tx status "$tx"
dk tx commit "$tx" -m 'the time, and this script'

dk ls -r example
dk cat example:greeting
dk diff example~1 example

# Waits until something changes, and tells what: fit for xargs.
since=$(dk branch head example)
echo 'hello again' | dk put example:greeting -m 'again' >/dev/null
dk watch --since "$since" example
