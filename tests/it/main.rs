//! Tests of the whole that need no component of another project.

mod house;
mod promises;
mod records;
