//! The shop as its users and its node meet it: the static program as a process, requests over TCP, signals. And the
//! load generator beside servers that count, too.

mod counts;
mod database;
mod endings;
mod releases;
mod secrets;
mod support;
