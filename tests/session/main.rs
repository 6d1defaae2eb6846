//! One real agent against a control plane whose every frame a test writes by hand.

mod frames;
mod lines;
mod registration;
mod scripted;
mod work;
