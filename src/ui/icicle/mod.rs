//! The icicle: stacks of a process merged into a tree that hangs from the top, width for weight.

pub mod layout;
pub mod search;
