//! Turns each `src/bpf/*.bpf.c` into a typed skeleton in `OUT_DIR`.
//!
//! Needs clang (11 or newer; `$CLANG` names one that lies elsewhere); libbpf's own headers come with libbpf-cargo, the
//! kernel's types with `src/bpf/kernel.h`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

const OBJECTS: [&str; 9] = ["sched", "oncpu", "life", "block", "numa", "mappings", "glance", "names", "ids"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = clang();
    for object in OBJECTS {
        let source = format!("src/bpf/{object}.bpf.c");
        if let Err(error) = SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(["-mcpu=v3", "-Wall", "-Wno-unused-function", "-Wno-missing-declarations"])
            .build_and_generate(out.join(format!("{object}.skel.rs")))
        {
            panic!("compiling {source} with {clang} failed: {error:?}");
        }
    }
    println!("cargo:rerun-if-changed=src/bpf");
    println!("cargo:rerun-if-changed=scripts/clang.sh");
    println!("cargo:rerun-if-env-changed=CLANG");
}

/// A clang that can compile for BPF; some distributions have it as `clang-14` only.
fn clang() -> String {
    let found = Command::new("sh").arg("scripts/clang.sh").output().expect("a shell can be started");
    match found.status.success() {
        true => String::from_utf8_lossy(&found.stdout).trim().to_owned(),
        false => panic!("{}(Debian: apt-get install clang)", String::from_utf8_lossy(&found.stderr)),
    }
}
