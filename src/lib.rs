//! sberf: a live profiler for Linux in the terminal.
//!
//! Data goes one way: `bpf` → [`collect`] → [`tick::Tick`] → [`model`] → [`ui`] or an export. See `ARCHITECTURE.md`.

pub mod collect;
pub mod model;
pub mod tick;
pub mod ui;
