use super::super::record::Cells;

/// First lines of a file, split into cells.
pub(super) struct Start<'s> {
    lines: Vec<&'s str>,
}

impl<'s> Start<'s> {
    pub(super) fn of(text: &'s str) -> Self {
        let lines = text.split(['\n', '\r']).filter(|line| !line.is_empty());
        Self {
            lines: lines.take(2).collect(),
        }
    }

    /// Cells of a line; none if the line does not exist or cannot be split.
    pub(super) fn cells(&self, at: usize, delimiter: u8) -> Vec<String> {
        let mut cells = Cells::default();
        match self.lines.get(at).map(|line| cells.split(line, delimiter)) {
            Some(Ok(())) => cells.iter().map(str::to_owned).collect(),
            Some(Err(_)) | None => Vec::new(),
        }
    }

    /// Most frequent delimiter of the first line, outside quotes.
    pub(super) fn delimiter(&self) -> u8 {
        let count = |delimiter: &u8| self.cells(0, *delimiter).len();
        // The first of several that are as frequent.
        let candidates = [b'\t', b'|', b';', b','];
        candidates.into_iter().max_by_key(count).unwrap_or(b',')
    }
}
