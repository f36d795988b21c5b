# fish completion for dk: dk itself is asked.
complete --keep-order --exclusive --command dk --arguments "(COMPLETE=fish dk -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token) 2> /dev/null)"
