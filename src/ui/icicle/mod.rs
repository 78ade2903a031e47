//! The icicle: stacks of a process merged into a tree that hangs from the top, width for weight.

mod explain;
mod label;
pub mod layout;
mod pane;
mod render;
pub mod search;
mod spot;
mod steer;
#[cfg(test)]
mod tests;
mod view;

pub use explain::window_name;
pub use pane::IciclePane;
pub use render::{draw, parts};
pub use steer::next_window;
pub use view::{Icicle, Under};
