//! The shells that there are completions for.

use std::str::FromStr;

/// A shell that there are completions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// The names of all, for the help.
    pub(super) const NAMES: [&str; 3] = ["bash", "zsh", "fish"];
}

impl FromStr for Shell {
    type Err = String;

    /// Fails with what would be right.
    fn from_str(name: &str) -> Result<Shell, String> {
        match name {
            "bash" => Ok(Shell::Bash),
            "zsh" => Ok(Shell::Zsh),
            "fish" => Ok(Shell::Fish),
            _ => Err("write bash, zsh or fish".to_owned()),
        }
    }
}
