//! Unwind tables against other implementations of the same: call frame information evaluated afresh, and stacks walked by
//! another unwinder.

mod elf;
mod files;
mod oracle;
mod process;
mod rows;
mod walks;
