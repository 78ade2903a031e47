//! Unwind tables against other implementations of the same: call frame information evaluated afresh, and stacks walked by
//! another unwinder.

mod alloc;
mod check;
mod corpus;
mod elf;
mod files;
mod handmade;
mod hostile;
mod made;
mod oracle;
mod process;
mod rows;
mod walks;
