//! Why the program ends badly, with the code it ends with.

use std::fmt;

use crate::{config::Faults, error::Error};

/// A reason to end, told on one or more lines.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for failed: exit code 1.
    Failed(String),
    /// The command line, the settings or the surroundings are wrong: exit code 2.
    Setup(String),
}

impl Failure {
    /// The program's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Setup(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Failed(text) | Failure::Setup(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(error.chain())
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Failure {
        Failure::Setup(faults.to_string())
    }
}
