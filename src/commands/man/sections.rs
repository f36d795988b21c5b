//! What the man pages say beyond options and commands.
//!
//! In the markup of `man.rs`. The exit statuses are a contract with scripts.

/// The sections of dk(1).
pub(super) const DK: &str = "\
Stores:
A store is a Git repository, bare or with a work tree; index and files of a work tree are never touched.
It is named by -C (--store), else by DK_STORE, else by GIT_DIR;
without any of them it is the nearest repository at or above the current folder.
A name is a path, or file:// and a path, or the address of a server (dk-serve(1)):
  tcp://HOST[:PORT]\ta host, by its name or address; the usual port is 5640
  unix:///PATH\ta Unix socket

Every command works on a server as it does on a repository.

A branch that some work tree has checked out is not written unless --force is given,
or the repository's configuration has dk.denyCurrentBranch=ignore.

Revisions:
Where a command takes a REV, it is one of these, tried in this order:
  NAME\ta branch
  ID\ta commit id in full
  PREFIX\tthe beginning of a commit id, of at least four digits, that fits no other commit
  HEAD, refs/…\twhat the repository's HEAD leads to, or a full ref name
  TAG\ta tag

After it may follow, any number of times:
  ~N\tthe Nth ancestor, always by the first parent; ~ is ~1
  ^N\tthe Nth parent; ^ is ^1, and ^0 the commit itself

REV:PATH is a path in a revision: the first colon divides the two, and nothing after it is the root.
Paths and names are bytes.
Slashes at either end of a path, and doubled ones, count for nothing.

Output:
stdout carries data and nothing else, one record a line.
With --json every record is one JSON object on a line of its own; the page of each command lists its keys.
Text that is not UTF-8 is {\"base64\": \"…\"} there.
Elsewhere a path that holds a control character, a double quote, a backslash or bytes that are not UTF-8
is quoted as git(1) does with core.quotePath=false;
with -z paths are raw, and NUL ends them.
Notices, progress, questions and errors go to stderr.
Colours, progress bars and questions appear on a terminal only, and control characters never reach it raw.

Exit status:
  0\tdone; also when the reader of stdout went away
  1\tfailed; with diff --exit-code: there are differences
  2\twrong usage: an option, a name that is not legal, an id that fits several commits
  3\ta conflict: of a merge, or of a commit with a head that moved
  4\tno such branch, commit, path or transaction
  5\tthe head was not where it was expected, or a fast-forward is not one
  124\twatch --timeout: nothing happened in time
  128\tdiff --exit-code: trouble

SIGINT and SIGTERM end dk by that signal.
The commands that dk watch --exec runs pass their own status on.

Durability:
A change is acknowledged (its id printed, status 0) when it is as durable as --durability says:
  strict\tit survives power loss: objects, folders and refs are synced before. The default.
  none\tit survives the end of dk, however violent, but not that of the machine. For tests and caches.

Either way a change is made as a whole or not at all, and other programs see it when it is acknowledged at the latest.

Environment:
  DK_STORE\tthe store, where -C does not name one
  GIT_DIR\tthe repository, where neither does
  GIT_CEILING_DIRECTORIES\twhere the search for a repository ends; see git(1)
  GIT_AUTHOR_NAME, GIT_AUTHOR_EMAIL\twho commits, where --author does not say it; then GIT_COMMITTER_NAME and GIT_COMMITTER_EMAIL, then user.name and user.email of Git's configuration
  GIT_AUTHOR_DATE\tthe date of a commit, instead of now: seconds since 1970 and a zone (@1700000000 +0100), ISO 8601 or RFC 2822
  VISUAL, EDITOR\tthe editor of dk edit
  NO_COLOR\tif not empty: no colours, unless --color=always
  COMPLETE\tset by shells that ask for completions

Files:
  refs/heads/\tthe branches
  refs/dk/tx/\topen transactions, each a commit that git show knows; see dk-tx(1). Git does not fetch, push or show them by itself.
  config\tdk.denyCurrentBranch, remotes, user.name and user.email; see git-config(1)
";

/// The last section of every other page.
pub(super) const OTHERS: &str = "\
See also:
dk(1) for the global options, the environment, the ways to name a revision, and the exit statuses.
";
