//! The control plane as a process of its own: this test binary, which runs [`child`] and nothing else.

use std::path::Path;

use aldis_tests::fleet::process::Program;

const CONFIG: &str = "ALDIS_TEST_CONTROL_PLANE";

/// The control plane's process; as a test of its own it does nothing.
#[test]
fn child() {
    let Ok(config) = std::env::var(CONFIG) else {
        return;
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = aldis_control_plane::config::load(Path::new(&config)).unwrap();
    aldis_control_plane::telemetry::start(&config.log).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(aldis_control_plane::run::run(
            config,
            std::future::pending(),
        ))
        .unwrap();
}

/// How it is started.
pub(crate) fn program(name: &str, config: &Path) -> Program {
    let me = std::env::current_exe().expect("a test knows its binary");
    Program::new(name, me)
        .arguments(["plane::child", "--exact", "--nocapture", "--quiet"])
        .environment(CONFIG, config)
}
