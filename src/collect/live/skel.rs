//! The generated skeletons, one module per object. Layouts of what crosses from the kernel come from here only.

#![allow(missing_docs, unused_qualifications, clippy::all)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::undocumented_unsafe_blocks)]

/// `src/bpf/sched.bpf.c`.
pub mod sched {
    include!(concat!(env!("OUT_DIR"), "/sched.skel.rs"));
}
/// `src/bpf/oncpu.bpf.c`.
pub mod oncpu {
    include!(concat!(env!("OUT_DIR"), "/oncpu.skel.rs"));
}
/// `src/bpf/life.bpf.c`.
pub mod life {
    include!(concat!(env!("OUT_DIR"), "/life.skel.rs"));
}
/// `src/bpf/block.bpf.c`.
pub mod block {
    include!(concat!(env!("OUT_DIR"), "/block.skel.rs"));
}
/// `src/bpf/numa.bpf.c`.
pub mod numa {
    include!(concat!(env!("OUT_DIR"), "/numa.skel.rs"));
}
/// `src/bpf/names.bpf.c`.
pub mod names {
    include!(concat!(env!("OUT_DIR"), "/names.skel.rs"));
}
/// `src/bpf/mappings.bpf.c`.
pub mod mappings {
    include!(concat!(env!("OUT_DIR"), "/mappings.skel.rs"));
}
/// `src/bpf/glance.bpf.c`.
pub mod glance {
    include!(concat!(env!("OUT_DIR"), "/glance.skel.rs"));
}
/// `src/bpf/ids.bpf.c`.
pub mod ids {
    include!(concat!(env!("OUT_DIR"), "/ids.skel.rs"));
}
