//! Generates the wire code from `proto/aldis/v1`. Needs `protoc`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new("proto");
    let files = ["agent", "common", "fleet", "jobs", "peer", "runbooks"]
        .map(|name| root.join(format!("aldis/v1/{name}.proto")));
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .file_descriptor_set_path(
            Path::new(&std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("aldis.bin"),
        )
        // Large messages are boxed: a channel allocates 32 slots at once.
        .boxed(".aldis.v1.SessionRequest.message.register")
        .compile_protos(&files, &[root.to_path_buf()])
}
