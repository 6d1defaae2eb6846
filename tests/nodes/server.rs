//! The program in the images of these tests: it serves, crashes, or says something. Linked statically by
//! [`super::images`]; nothing but the standard library is in it.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["crash"] => {
            println!("cannot go on");
            ExitCode::from(3)
        }
        ["say", what] => {
            println!("said {what}");
            ExitCode::SUCCESS
        }
        ["reach-the-api"] => reach_the_api(),
        _ => ExitCode::from(2),
    }
}

fn serve() -> ExitCode {
    let listener = TcpListener::bind("0.0.0.0:8080").expect("port 8080 is free in a pod");
    println!("serving");
    for stream in listener.incoming().flatten() {
        answer(stream);
    }
    ExitCode::FAILURE
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 1024];
    let length = stream.read(&mut request).unwrap_or_default();
    let first = String::from_utf8_lossy(&request[..length]);
    let path = first
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    println!("served {path}");
    let host = env::var("HOSTNAME").unwrap_or_default();
    let body = format!("{path} by {host}");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // Whoever asked may be gone.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// As a client in a cluster finds it.
fn reach_the_api() -> ExitCode {
    let said = |name: &str| env::var(name).unwrap_or_default();
    let address = format!(
        "{}:{}",
        said("KUBERNETES_SERVICE_HOST"),
        said("KUBERNETES_SERVICE_PORT")
    );
    match TcpStream::connect(&address) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{address}: {error}");
            ExitCode::FAILURE
        }
    }
}
