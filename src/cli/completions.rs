//! The scripts that complete commands and flags in shells.

use crate::cli::shell::Shell;

/// Makes the script of that shell.
///
/// # Errors
/// The minimal build has no completions; the text says so.
#[cfg(feature = "shell-comfort")]
pub fn script(shell: Shell) -> Result<String, String> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::table::command_line(), "threadcast", &mut script);
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// The minimal build has no completions.
///
/// # Errors
/// Always: the text says so.
#[cfg(not(feature = "shell-comfort"))]
pub fn script(_shell: Shell) -> Result<String, String> {
    Err("this is the minimal build, which has no completions; take those of the full one".to_owned())
}
