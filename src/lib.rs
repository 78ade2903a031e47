//! sberf: a live profiler for Linux in the terminal.
//!
//! Data goes one way: `bpf` → [`collect`] → [`tick::Tick`] → [`model`] → [`ui`] or an export. See `ARCHITECTURE.md`.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::todo, clippy::unimplemented, clippy::dbg_macro)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod collect;
pub mod model;
pub mod tick;
pub mod ui;
