//! The screen: `&Model` and view state become a frame, keys become actions.
#![forbid(unsafe_code)]

pub mod chart;
pub mod heat;
pub mod icicle;
pub mod syscalls;
