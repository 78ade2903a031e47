//! Tables for walking user stacks without frame pointers: what `.eh_frame` says of each instruction, in a form that the
//! kernel side searches in a microsecond (`src/bpf/unwind.h` has its shape). Nothing here needs root.

mod arch;
mod bytes;
mod cfi;
mod image;
mod index;
mod plt;
mod rule;
mod rules;
mod space;
mod step;
mod store;
#[cfg(test)]
mod store_test;
mod table;

pub use bytes::{Pager, ReadAt, View};
pub use image::NoTable;
pub use rule::{Cfa, FoundBy, Fp, PageEntry, Row, Rule, Stop, shape};
pub use rules::Rules;
pub use step::{Code, Frame, Part, Place, Registers, Stack, walk};
pub use store::{FileEntry, FileId, FileKey, Fill, Maps, Now, Refused, Store};
pub use table::{Extent, Table, Window};
