//! A 9P server of a file tree: connections, their fids, their requests.
