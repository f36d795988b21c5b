//! Random histories on both sides, with faults.
