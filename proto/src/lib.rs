//! The wire of Aldis: services and messages, and how core documents travel in them.
//!
//! Control data (ids, sequence numbers, fences) are typed fields. What is digested, journalled or
//! shown (plans, assignments, reports, views) travels as a [`v1::Document`]: the canonical JSON of a
//! core type, so that no second description of it exists that could disagree with its digest.
//! Protobuf types stop at this crate and at the programs' `grpc` modules.

#![deny(missing_docs)]

pub mod convert;
pub mod failpoint;

/// Generated from `proto/aldis/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("aldis.v1");
}

/// Every service and method, for the authorization table's test and for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/aldis.bin"));
