//! Lines of a recording and their cells. A line has a bound, and a quoted cell ends on its own
//! line, so a stray quote or a missing line end invalidates no other line.

use std::io::{BufRead, Error, ErrorKind, Result};

/// Maximum length of a line in bytes.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes without a line end after which a file is no text of lines.
const UNBROKEN_BYTES_MAX: u64 = 64 << 20;

/// Result of reading a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Whole,
    /// Longer than [`LINE_BYTES_MAX`]; only the beginning is kept.
    TooLong,
}

/// Reads lines that end with `\n`, `\r\n` or `\r`; empty lines are skipped.
#[derive(Debug)]
pub(super) struct Lines<R> {
    inner: R,
    line: Vec<u8>,
    number: u64,
    follows_return: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(inner: R) -> Self {
        Self {
            inner,
            line: Vec::new(),
            number: 0,
            follows_return: false,
        }
    }

    /// Bytes of the last line; after an error, of the incomplete line.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Number of the last line, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        self.line.clear();
        let mut bytes = 0;
        loop {
            let buffer = match self.inner.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() {
                self.number += u64::from(bytes > 0);
                return Ok((bytes > 0).then(|| length_of(bytes)));
            }
            if std::mem::take(&mut self.follows_return) && buffer[0] == b'\n' {
                self.inner.consume(1);
                continue;
            }
            if bytes == 0 {
                // Consecutive empty lines are skipped at once.
                let empty = buffer.iter().take_while(|byte| **byte == b'\n').count();
                if empty > 0 {
                    self.number += empty as u64;
                    self.inner.consume(empty);
                    continue;
                }
            }
            let end = memchr::memchr2(b'\n', b'\r', buffer);
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            bytes += part.len() as u64;
            self.follows_return = end.is_some_and(|end| buffer[end] == b'\r');
            let taken = part.len() + usize::from(end.is_some());
            self.inner.consume(taken);
            if end.is_some() {
                self.number += 1;
                if bytes > 0 {
                    return Ok(Some(length_of(bytes)));
                }
            }
            if bytes > UNBROKEN_BYTES_MAX {
                let message = "no end of line within 64 MiB; this is not a CSV file";
                return Err(Error::new(ErrorKind::InvalidData, message));
            }
        }
    }
}

const fn length_of(bytes: u64) -> Line {
    if bytes > LINE_BYTES_MAX as u64 {
        Line::TooLong
    } else {
        Line::Whole
    }
}

/// Quoted cell that is not closed correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QuoteFault {
    #[error("quoted cell without a closing quote on its line")]
    Open,
    #[error("unexpected characters after the closing quote of a cell")]
    Trailing,
}

/// Cells of one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cells {
    text: String,
    ends: Vec<usize>,
}

impl Cells {
    /// Splits a line into cells. Spaces around a cell are removed.
    pub(super) fn split(
        &mut self,
        line: &str,
        delimiter: u8,
    ) -> std::result::Result<(), QuoteFault> {
        self.text.clear();
        self.ends.clear();
        let mut rest = line;
        loop {
            let trimmed = rest.trim_start_matches(' ');
            let after = if let Some(quoted) = trimmed.strip_prefix('"') {
                self.quoted(quoted)?
            } else {
                let end = memchr::memchr(delimiter, trimmed.as_bytes()).unwrap_or(trimmed.len());
                self.text.push_str(trimmed[..end].trim_end_matches(' '));
                &trimmed[end..]
            };
            self.ends.push(self.text.len());
            match after.as_bytes().first() {
                None => return Ok(()),
                Some(byte) if *byte == delimiter => rest = &after[1..],
                Some(_) => return Err(QuoteFault::Trailing),
            }
        }
    }

    /// Parses a quoted cell without its quotes; returns the rest of the line.
    fn quoted<'l>(&mut self, mut rest: &'l str) -> std::result::Result<&'l str, QuoteFault> {
        loop {
            let (inside, after) = rest.split_once('"').ok_or(QuoteFault::Open)?;
            self.text.push_str(inside);
            match after.strip_prefix('"') {
                Some(more) => {
                    self.text.push('"');
                    rest = more;
                }
                None => return Ok(after.trim_start_matches(' ')),
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn cell(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)?;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        Some(&self.text[start..end])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|at| self.cell(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cells(line: &str) -> std::result::Result<Vec<String>, QuoteFault> {
        let mut cells = Cells::default();
        cells.split(line, b',')?;
        Ok(cells.iter().map(str::to_owned).collect())
    }

    fn lines(text: &[u8], buffer: usize) -> Vec<(u64, String)> {
        let mut lines = Lines::new(std::io::BufReader::with_capacity(buffer, text));
        let mut found = Vec::new();
        while let Ok(Some(_line)) = lines.next() {
            let text = String::from_utf8_lossy(lines.line()).into_owned();
            found.push((lines.number(), text));
        }
        found
    }

    #[test]
    fn quoted_cells_are_parsed_and_stray_quotes_rejected() {
        let own = |cells: &[&str]| Ok(cells.iter().map(|cell| (*cell).to_owned()).collect());
        assert_eq!(cells(r#"a,"b,c",d"#), own(&["a", "b,c", "d"]));
        assert_eq!(cells(r#" a , "b ""c""" ,"#), own(&["a", r#"b "c""#, ""]));
        assert_eq!(cells(r#"5" pipe,1"#), own(&[r#"5" pipe"#, "1"]));
        assert_eq!(cells(r#"a,"1"#), Err(QuoteFault::Open));
        assert_eq!(cells(r#""a"b,1"#), Err(QuoteFault::Trailing));
    }

    #[test]
    fn every_line_ending_counts_once() {
        for buffer in 1..9 {
            let own = |at: u64, text: &str| (at, text.to_owned());
            assert_eq!(
                lines(b"a\r\nb\rc\n\nd", buffer),
                [own(1, "a"), own(2, "b"), own(3, "c"), own(5, "d")]
            );
        }
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        let text = [b"a\n", &long[..], b"\nb\n"].concat();
        let mut read = Lines::new(&text[..]);
        let mut kinds = Vec::new();
        while let Ok(Some(line)) = read.next() {
            assert!(read.line().len() <= LINE_BYTES_MAX);
            kinds.push(line);
        }
        assert_eq!(kinds, [Line::Whole, Line::TooLong, Line::Whole]);
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        let mut read = Lines::new(endless);
        assert!(read.next().is_err() && read.line.capacity() <= 2 * LINE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn quoted_cells_round_trip(values in proptest::collection::vec("[ -~]{0,8}", 1..6)) {
            let quoted = |value: &String| format!("\"{}\"", value.replace('"', "\"\""));
            let line = values.iter().map(quoted).collect::<Vec<_>>().join(",");
            prop_assert_eq!(cells(&line), Ok(values));
        }

        #[test]
        fn splitting_arbitrary_lines_never_panics(line in "[ ,\"a]{0,20}") {
            let _cut_or_refused = cells(&line);
        }
    }
}
