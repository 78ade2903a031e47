//! Tables for walking user stacks without frame pointers: what `.eh_frame` says of each instruction, in a form that the
//! kernel side searches in a microsecond (`src/bpf/unwind.h` has its shape). Nothing here needs root.

mod rule;

pub use rule::{Cfa, FoundBy, Fp, PageEntry, Row, Rule, Stop, shape};
