//! Colors in what commands print: on a terminal only, not on a dumb one, and not with NO_COLOR.

use crate::process::tty;
use std::io::IsTerminal;

/// The text stays as it is.
pub const NONE: &str = "";
/// For what stands out; an SGR parameter (ECMA-48), as all of these are.
pub const BOLD: &str = "1";
/// For what is seldom read.
pub const DIM: &str = "2";
/// For errors.
pub const RED: &str = "31";
/// For what went well.
pub const GREEN: &str = "32";
/// For what deserves a look.
pub const YELLOW: &str = "33";

/// Paints, or leaves texts plain, as the default one does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Painter {
    colors: bool,
}

impl Painter {
    /// For standard output.
    pub fn of_stdout() -> Painter {
        Painter {
            colors: std::io::stdout().is_terminal() && !tty::forbids_colors() && !tty::is_dumb(),
        }
    }

    /// `text` in that color.
    pub fn paint(self, color: &str, text: &str) -> String {
        if self.colors && color != NONE {
            format!("\u{1b}[{color}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
