//! The screen: `&Model` and view state become a frame, keys become actions.
#![forbid(unsafe_code)]
