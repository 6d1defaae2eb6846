//! Documents to lines. Nothing here prints, asks a server or reads a clock.

pub mod agents;
pub mod job;
pub mod plan;
#[cfg(test)]
pub(crate) mod sample;
pub mod standing;
pub mod table;
pub mod text;
pub mod time;
pub mod verdict;
