use super::super::record::Cells;

/// The first lines of a file, cut into cells.
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

    /// The cells of a line, or none where it isn't there or can't be cut.
    pub(super) fn cells(&self, at: usize, delimiter: u8) -> Vec<String> {
        let mut cells = Cells::default();
        match self.lines.get(at).map(|line| cells.split(line, delimiter)) {
            Some(Ok(())) => cells.iter().map(str::to_owned).collect(),
            Some(Err(_)) | None => Vec::new(),
        }
    }

    /// The delimiter that the first line has most often, outside quotes.
    pub(super) fn delimiter(&self) -> u8 {
        let count = |delimiter: &u8| self.cells(0, *delimiter).len();
        // The first of several that are as frequent.
        let candidates = [b'\t', b'|', b';', b','];
        candidates.into_iter().max_by_key(count).unwrap_or(b',')
    }
}
