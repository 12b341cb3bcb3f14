//! Reads a segment line by line, in bounded memory whatever is in it.

use crate::journal::line::LINE_BYTES_MAX;
use crate::process::safe_open;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What is read from the file at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// The lines of one segment.
#[derive(Debug)]
pub struct LineReader {
    input: BufReader<io::Take<File>>,
    line: Vec<u8>,
    at: u64,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLine<'a> {
    /// Without its end; empty when it is longer than any line that we write.
    pub bytes: &'a [u8],
    /// It has an end; without one it is torn, or somebody is just writing it.
    pub is_whole: bool,
    /// Where in the file it ends, its end included.
    pub end: u64,
}

impl LineReader {
    /// Reads the regular file at `path`, at most its first `bytes_max` bytes.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<LineReader> {
        let file = safe_open::read(path)?.take(bytes_max);
        Ok(LineReader {
            input: BufReader::with_capacity(BUFFER_BYTES, file),
            line: Vec::new(),
            at: 0,
        })
    }

    /// Goes on with the first line that begins after byte `offset`, which the reader must not have passed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let left = offset - self.at;
        self.input.seek(SeekFrom::Current(left as i64))?;
        self.at = offset;
        // The rest of the line in whose middle that is.
        self.next_line().map(|_| ())
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.line.clear();
        let mut start = self.input.by_ref().take(LINE_BYTES_MAX as u64);
        let read = start.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.at += read as u64;
        let mut is_whole = self.line.ends_with(b"\n");
        if is_whole {
            self.line.pop();
        } else if read == LINE_BYTES_MAX {
            self.line.clear();
            let skipped = skip_line(&mut self.input)?;
            self.at += skipped.0;
            is_whole = skipped.1;
        }
        Ok(Some(RawLine {
            bytes: &self.line,
            is_whole,
            end: self.at,
        }))
    }
}

/// Reads over the rest of a line: how many bytes that were, and whether its end was among them.
fn skip_line(input: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok((skipped, false));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let len = end.map_or(buffer.len(), |end| end + 1);
        input.consume(len);
        skipped += len as u64;
        if end.is_some() {
            return Ok((skipped, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let long = "x".repeat(2 * LINE_BYTES_MAX + 10);
        std::fs::write(&path, format!("one\n\n{long}\ntwo\ntorn")).unwrap();
        let mut reader = LineReader::open(&path, u64::MAX).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push((
                String::from_utf8_lossy(line.bytes).into_owned(),
                line.is_whole,
                line.end,
            ));
        }
        let after_long = 5 + long.len() as u64 + 1;
        assert_eq!(
            lines,
            [
                ("one".to_owned(), true, 4),
                (String::new(), true, 5),
                (String::new(), true, after_long),
                ("two".to_owned(), true, after_long + 4),
                ("torn".to_owned(), false, after_long + 8),
            ]
        );
    }

    #[test]
    fn reading_begins_and_ends_where_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "one\ntwo\nthree\nfour\n").unwrap();
        let mut reader = LineReader::open(&path, 14).unwrap();
        assert_eq!(reader.next_line().unwrap().unwrap().bytes, b"one");
        reader.skip_to(5).unwrap();
        let line = reader.next_line().unwrap().unwrap();
        assert_eq!((line.bytes, line.end), (&b"three"[..], 14));
        assert_eq!(reader.next_line().unwrap(), None);
    }
}
