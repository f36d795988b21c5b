//! Parts of the tree.
