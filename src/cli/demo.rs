//! demo
use clap::Args;
use crate::app::Failure;
#[derive(Debug, Args)]
pub(super) struct Options { #[arg(long)] once: bool }
pub(super) fn run(_: Options) -> Result<(), Failure> { Ok(()) }
