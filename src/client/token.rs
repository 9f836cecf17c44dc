//! Tokens that a client presents: keys (`ID.SECRET`) and JSON Web Tokens.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::files::read_regular;

/// Maximum length of a token in bytes; servers refuse longer ones.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Token of a client, or the place from which it is read. It is read for each connection, and again
/// when the server announces its end. `Debug` never shows a token.
///
/// ```
/// use tickcast::client::Token;
///
/// let fixed = Token::new("desk-1.0Wq2hJ9c");
/// let renewed_by_another_program = Token::file("/run/feed/token");
/// let made_here = Token::hook(|| std::fs::read_to_string("/run/feed/token"));
/// assert!(made_here.renews() && !fixed.renews());
/// ```
#[derive(Clone)]
pub struct Token(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<str>),
    File(Arc<Path>),
    Hook(Arc<Hook>),
}

type Hook = dyn Fn() -> io::Result<String> + Send + Sync;

/// Reason why there is no token to present. The text never contains the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The text cannot be a token.
    #[error(
        "invalid token{of}: expected a key (ID.SECRET) or a JSON Web Token of at most 8 KiB, without spaces"
    )]
    Form {
        /// Origin of the text, as in ` in /run/feed/token`.
        of: String,
    },
    /// The file cannot be read.
    #[error("cannot read the token in {}: {error}", file.display())]
    File {
        /// Path of the file.
        file: PathBuf,
        /// Reason.
        error: io::Error,
    },
    /// The hook failed.
    #[error("no token: {0}")]
    Hook(io::Error),
}

impl Token {
    /// Token that never changes.
    pub fn new(token: impl Into<Arc<str>>) -> Self {
        Self(Source::Fixed(token.into()))
    }

    /// Token in a file, which is read again when the server announces the end of the token.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into().into()))
    }

    /// Token that a function returns at once. For a function that waits, call
    /// [`Client::authenticate`](super::Client::authenticate) with its result instead.
    pub fn hook(hook: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        Self(Source::Hook(Arc::new(hook)))
    }

    /// True if another token may be read later.
    pub const fn renews(&self) -> bool {
        !matches!(self.0, Source::Fixed(_))
    }

    /// Reads the token.
    pub(crate) fn read(&self) -> Result<Bearer, TokenError> {
        match &self.0 {
            Source::Fixed(token) => Bearer::parse(token, ""),
            Source::File(path) => {
                let read = read_regular(path, TOKEN_BYTES_MAX);
                let bytes = read.map_err(|error| TokenError::File {
                    file: path.to_path_buf(),
                    error,
                })?;
                let text = String::from_utf8_lossy(&bytes);
                Bearer::parse(&text, &format!(" in {}", path.display()))
            }
            Source::Hook(hook) => Bearer::parse(&hook().map_err(TokenError::Hook)?, ""),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Fixed(_) => f.write_str("Token(..)"),
            Source::File(path) => f.debug_tuple("Token").field(path).finish(),
            Source::Hook(_) => f.write_str("Token(hook)"),
        }
    }
}

/// Text of a token, which is valid in a header.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bearer(Arc<str>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Bearer {
    fn parse(text: &str, of: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let is_valid = (1..=TOKEN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        let invalid = || TokenError::Form { of: of.to_owned() };
        is_valid.then(|| Self(text.into())).ok_or_else(invalid)
    }

    /// The token itself.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Value of the header `Authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0))
            .expect("a token has visible ASCII characters only");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_and_its_errors_name_it_without_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let token = Token::file(&path);
        let missing = token.read().expect_err("no file").to_string();
        assert!(missing.contains(&path.display().to_string()), "{missing}");
        for text in ["first.secret\n", "second.secret"] {
            std::fs::write(&path, text).expect("room");
            let read = token.read().expect("a token");
            assert_eq!(read.text(), text.trim());
            assert_eq!(format!("{read:?}"), "Bearer(..)");
        }
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for wrong in ["", "  \n", "canary secret", "canary\u{7f}", "käse.1", &long] {
            std::fs::write(&path, wrong).expect("room");
            let error = token.read().expect_err(wrong).to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn no_token_is_shown_by_debug() {
        let fixed = Token::new("canary.secret");
        let bearer = fixed.read().expect("a token");
        for shown in [
            format!("{fixed:?}"),
            format!("{bearer:?}"),
            format!("{:?}", bearer.header()),
        ] {
            assert!(!shown.contains("canary"), "{shown}");
        }
        let hook = Token::hook(|| Ok("canary.secret".to_owned()));
        assert!(hook.renews() && !fixed.renews());
        assert_eq!(hook.read().expect("a token"), bearer);
    }
}
