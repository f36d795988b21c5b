//! The file tree, with no wire in it: what a dk database looks like to who
//! mounts it (dk-tree(5)).

pub mod node;
