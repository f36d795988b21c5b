//! Three-way merges.
