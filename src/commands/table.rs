//! Tables for people that fit the width of what they are shown on: columns that have no room are left out, and named.

use crate::commands::painter::{BOLD, Painter};
use crate::process::tty::{columns, columns_of, first_of};
use rustix::termios::tcgetwinsize;
use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;

/// Width of what is no terminal, where `COLUMNS` does not tell another one.
const COLUMNS_USUAL: usize = 120;
/// What `COLUMNS` may say: less cannot hold a table, more is a mistake.
const COLUMNS_SANE: RangeInclusive<usize> = 20..=10_000;
/// What stands between two columns.
const GAP: usize = 2;

/// Which part of a text stays if it has too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All of it, aligned to the right: numbers.
    Number,
    /// All of it: words.
    Word,
    /// The beginning, at least this many characters.
    Beginning(usize),
    /// Both ends, with at least this many characters: where names differ at their ends.
    Ends(usize),
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub head: &'static str,
    pub fit: Fit,
    /// Columns with a higher rank are left out first; 0 stays.
    pub rank: u8,
}

/// A column, from its head, its fit and its rank.
pub const fn column(head: &'static str, fit: Fit, rank: u8) -> Column {
    Column { head, fit, rank }
}

/// A table of texts.
#[derive(Debug)]
pub struct Table {
    columns: &'static [Column],
    /// Each with its color.
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// Without rows.
    pub fn new(columns: &'static [Column]) -> Table {
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column.
    pub fn push(&mut self, color: &'static str, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push((color, cells));
    }

    /// Its lines, none wider than `width` columns unless the columns that stay have no room at all. A column whose
    /// cells are all empty is left out; those that are left out for want of room are named in the last line.
    pub fn text(&self, width: usize, painter: Painter) -> String {
        let (shown, left_out) = self.choose(width);
        let widths = self.widths(&shown, width);
        let heads = shown.iter().map(|index| self.columns[*index].head);
        let mut text = painter.paint(BOLD, &self.line(&shown, &widths, heads)) + "\n";
        for (color, cells) in &self.rows {
            let cells = shown.iter().map(|index| cells[*index].as_str());
            text.push_str(&painter.paint(color, &self.line(&shown, &widths, cells)));
            text.push('\n');
        }
        if !left_out.is_empty() {
            let heads: Vec<&str> = left_out.iter().map(|index| self.columns[*index].head).collect();
            let note = format!("no room for {}; --json has them", heads.join(", "));
            text.push_str(&wrapped(&note, " ", width));
        }
        text
    }

    /// The columns that are shown, and those that have no room.
    fn choose(&self, width: usize) -> (Vec<usize>, Vec<usize>) {
        let has_content = |index: &usize| self.rows.iter().any(|(_, cells)| !cells[*index].is_empty());
        let mut shown: Vec<usize> = (0..self.columns.len()).filter(has_content).collect();
        let mut left_out = Vec::new();
        let needed = |shown: &[usize]| -> usize { shown.iter().map(|index| self.least(*index) + GAP).sum() };
        while needed(&shown) > width + GAP {
            let ranked = shown.iter().enumerate();
            let Some((place, _)) = ranked
                .filter(|(_, index)| self.columns[**index].rank > 0)
                .max_by_key(|(_, index)| self.columns[**index].rank)
            else {
                break;
            };
            left_out.push(shown.remove(place));
        }
        left_out.sort_unstable();
        (shown, left_out)
    }

    /// The width of a column in which nothing is cut.
    fn most(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|(_, cells)| columns(&cells[index]));
        cells.max().unwrap_or(0).max(self.columns[index].head.len())
    }

    /// The least width of a column.
    fn least(&self, index: usize) -> usize {
        let most = self.most(index);
        match self.columns[index].fit {
            Fit::Number | Fit::Word => most,
            Fit::Beginning(least) | Fit::Ends(least) => most.min(least.max(self.columns[index].head.len())),
        }
    }

    /// The width of each shown column: at least its least; what is left goes to the first that can use it.
    fn widths(&self, shown: &[usize], width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = shown.iter().map(|index| self.least(*index)).collect();
        let needed = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let mut left = width.saturating_sub(needed);
        for (index, width) in shown.iter().zip(&mut widths) {
            let more = (self.most(*index) - *width).min(left);
            *width += more;
            left -= more;
        }
        widths
    }

    fn line<'a>(&self, shown: &[usize], widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
        let mut text = String::new();
        for ((cell, index), width) in cells.zip(shown).zip(widths) {
            if !text.is_empty() {
                text.push_str(&" ".repeat(GAP));
            }
            let cell = match self.columns[*index].fit {
                Fit::Number => padded(cell, *width, true),
                Fit::Word => padded(cell, *width, false),
                Fit::Beginning(_) => padded(&beginning(cell, *width), *width, false),
                Fit::Ends(_) => padded(&ends(cell, *width), *width, false),
            };
            text.push_str(&cell);
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// How many columns a line of standard output has.
pub fn width() -> usize {
    let stdout = io::stdout();
    if stdout.is_terminal()
        && let Ok(size) = tcgetwinsize(&stdout)
        && size.ws_col > 0
    {
        return usize::from(size.ws_col);
    }
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    told.filter(|columns| COLUMNS_SANE.contains(columns))
        .unwrap_or(COLUMNS_USUAL)
}

/// `text` in lines of at most `width` columns, broken behind `separator` only.
pub fn wrapped(text: &str, separator: &str, width: usize) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    for part in text.split_inclusive(separator) {
        let len = columns(part.trim_end());
        if column > 0 && column + len > width {
            lines.truncate(lines.trim_end().len());
            lines.push('\n');
            column = 0;
        }
        lines.push_str(part);
        column += columns(part);
    }
    lines.truncate(lines.trim_end().len());
    lines + "\n"
}

/// What stands for what is cut off.
const CUT: char = '…';

/// The beginning of `text` that takes `most` columns, with the mark of a cut if it is not all.
fn beginning(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut begun = first_of(text.chars(), most.saturating_sub(1), columns_of);
    begun.push(CUT);
    begun
}

/// Both ends of `text`, in at most `most` columns, with the mark of a cut between them if it is not all.
pub fn ends(text: &str, most: usize) -> String {
    if columns(text) <= most || most < 3 {
        return beginning(text, most);
    }
    let begun = first_of(text.chars(), most / 2, columns_of);
    let end = first_of(text.chars().rev(), most - most / 2 - 1, columns_of);
    begun.chars().chain([CUT]).chain(end.chars().rev()).collect()
}

/// `cell` with blanks before or behind it, `width` columns wide.
fn padded(cell: &str, width: usize, right: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(columns(cell)));
    if right {
        blanks + cell
    } else {
        cell.to_owned() + &blanks
    }
}

/// A count in at most five characters.
pub fn count(count: f64) -> String {
    match count {
        count if count < 99_999.5 => format!("{count:.0}"),
        count if count < 999_500.0 => format!("{:.0}k", count / 1e3),
        count if count < 99_950_000.0 => format!("{:.1}M", count / 1e6),
        count if count < 9.995e8 => format!("{:.0}M", count / 1e6),
        count => format!("{:.1}G", count / 1e9),
    }
}

/// A time, given in ms, in at most six characters.
pub fn time(ms: f64) -> String {
    let seconds = (ms / 1000.0).round() as u64;
    match ms {
        0.0 => "0".to_owned(),
        ms if ms < 9.95 => format!("{ms:.1}ms"),
        ms if ms < 999.5 => format!("{ms:.0}ms"),
        ms if ms < 99_950.0 => format!("{:.1}s", ms / 1000.0),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 100 * 3600 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [
        column("NAME", Fit::Ends(10), 0),
        column("TYPE", Fit::Beginning(6), 2),
        column("STATE", Fit::Word, 0),
        column("RATE", Fit::Number, 1),
        column("NOTE", Fit::Word, 0),
    ];

    fn table(rows: &[[&str; 5]], width: usize) -> Vec<String> {
        let mut table = Table::new(&COLUMNS);
        for row in rows {
            table.push("", row.map(str::to_owned).to_vec());
        }
        let text = table.text(width, Painter::default());
        text.lines().map(str::to_owned).collect()
    }

    const ROWS: [[&str; 5]; 2] = [
        ["worker-0123456789-a", "encoding", "busy", "0.5", ""],
        ["db", "", "waiting", "12", ""],
    ];

    #[test]
    fn columns_have_the_room_that_they_need_and_empty_ones_are_left_out() {
        assert_eq!(
            table(&ROWS, 80),
            [
                "NAME                 TYPE      STATE    RATE",
                "worker-0123456789-a  encoding  busy      0.5",
                "db                             waiting    12",
            ]
        );
    }

    #[test]
    fn texts_are_cut_before_columns_are_left_out_by_rank() {
        assert_eq!(table(&ROWS, 36)[1], "worker…6789-a  encod…  busy      0.5");
        assert_eq!(
            table(&ROWS, 30),
            [
                "NAME             STATE    RATE",
                "worker-…56789-a  busy      0.5",
                "db               waiting    12",
                "no room for TYPE; --json has",
                "them",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        for letter in ["ä", "好", "🚀"] {
            lines_fit(&letter.repeat(500));
        }
    }

    fn lines_fit(long: &str) {
        let rows = [[long, long, "busy", "0.5", "stale"], ROWS[1]];
        for width in 30..200 {
            let lines = table(&rows, width);
            assert!(lines.iter().all(|line| columns(line) <= width), "{width}: {lines:#?}");
            assert!(lines[1].ends_with("stale"), "{width}: {lines:#?}");
        }
    }

    #[test]
    fn a_sentence_is_broken_where_it_may_be() {
        assert_eq!(wrapped("one, two; three; four", "; ", 17), "one, two; three;\nfour\n");
        assert_eq!(wrapped("one; two", "; ", 3), "one;\ntwo\n");
        assert_eq!(wrapped("", " ", 3), "\n");
    }

    #[test]
    fn numbers_are_short() {
        let counts = [0.0, 99_999.0, 123_456.0, 1_250_000.0, 123e6, 5e9].map(count);
        assert_eq!(counts, ["0", "99999", "123k", "1.2M", "123M", "5.0G"]);
        let times = [0.0, 0.064, 12.3, 1500.0, 125_000.0, 7_500_000.0, 9e8].map(time);
        assert_eq!(times, ["0", "0.1ms", "12ms", "1.5s", "2m05s", "2h05m", "10d10h"]);
    }
}
