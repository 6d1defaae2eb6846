//! Figures, each beside its limit measured in the same run. Nothing is asserted.
//!
//! `make bench`, or `make bench FIGURES="starts command"` for some of them. Everything runs on this machine, so that
//! client, control plane and etcd share its cores; the ratio is what carries over.
#![allow(clippy::print_stdout, reason = "figures are for people")]

mod command;
mod failover;
mod figure;
mod memory;
mod programs;
mod rollback;
mod starts;
mod submissions;

use figure::Figure;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let takes = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut figures: Vec<Figure> = Vec::new();
    if takes("submissions") {
        figures.extend(runtime.block_on(submissions::measure())?);
    }
    if takes("starts") {
        figures.extend(runtime.block_on(starts::measure())?);
    }
    if takes("rollback") {
        figures.extend(runtime.block_on(rollback::measure())?);
    }
    if takes("failover") {
        figures.extend(runtime.block_on(failover::measure())?);
    }
    if takes("memory") {
        figures.extend(runtime.block_on(memory::measure())?);
    }
    if takes("command") {
        figures.extend(command::measure()?);
    }
    figure::print(&figures);
    Ok(())
}
