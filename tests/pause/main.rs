//! Holds the namespaces of a pod: waits until it is killed. Linked statically by `fleet/binaries.sh`, since its
//! image holds nothing else.

fn main() {
    if std::env::args().nth(1).is_some_and(|asked| asked == "--version") {
        let _ = std::io::Write::write_all(&mut std::io::stdout(), b"pause 1\n");
        return;
    }
    loop {
        std::thread::park();
    }
}
