//! Incremental validation of text that is skipped, not gathered.

use super::frame::FrameError;

/// Incremental check of UTF-8 text.
#[derive(Debug, Default)]
pub(super) struct Utf8Check {
    /// Start of a character of which the rest has not come yet.
    partial: Vec<u8>,
}

impl Utf8Check {
    /// Takes the next piece of the text.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !self.partial.is_empty() {
            let [next, rest @ ..] = bytes else {
                return Ok(());
            };
            self.partial.push(*next);
            bytes = rest;
            match std::str::from_utf8(&self.partial) {
                Ok(_) => self.partial.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(FrameError::Utf8("a text message")),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.partial
                    .extend_from_slice(&bytes[error.valid_up_to()..]);
                Ok(())
            }
            Err(_) => Err(FrameError::Utf8("a text message")),
        }
    }

    /// Ends the text; fails in the middle of a character.
    pub(super) fn finish(&self) -> Result<(), FrameError> {
        if self.partial.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Utf8("a text message"))
        }
    }
}
