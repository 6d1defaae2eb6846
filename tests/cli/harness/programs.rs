//! Our own programs, as the sources are now.

use std::path::PathBuf;
use std::sync::OnceLock;

use aldis_tests::fleet::system::programs::build_with_crash_points;

/// The file of a program: the command line, and what `aldis dev` starts.
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).join(name)
}

/// On a thread of its own: whoever asks first may be in a runtime.
fn build() -> PathBuf {
    let building = std::thread::spawn(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(build_with_crash_points())
    });
    building
        .join()
        .expect("the build does not panic")
        .expect("the programs are built")
}
