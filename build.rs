//! Turns each `src/bpf/*.bpf.c` into a typed skeleton in `OUT_DIR`.
//!
//! Needs clang (10 or newer); libbpf's own headers come with libbpf-cargo, the kernel's types with `src/bpf/kernel.h`.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const OBJECTS: [&str; 5] = ["sched", "oncpu", "life", "block", "numa"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for object in OBJECTS {
        let source = format!("src/bpf/{object}.bpf.c");
        if let Err(error) = SkeletonBuilder::new()
            .source(&source)
            .clang_args(["-mcpu=v3", "-Wall", "-Wno-unused-function", "-Wno-missing-declarations"])
            .build_and_generate(out.join(format!("{object}.skel.rs")))
        {
            panic!("compiling {source} failed: {error:?}\nIs clang installed? (Debian: apt-get install clang)");
        }
    }
    println!("cargo:rerun-if-changed=src/bpf");
}
