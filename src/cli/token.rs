//! Options of the commands that connect to servers with authentication.

use std::path::PathBuf;

use crate::client::{ClientError, Token};
use crate::protocol::Code;

/// Difference between a close code and the code of the protocol.
const CLOSE_BASE: u16 = 4000;
/// Variable of the environment with a token.
const VARIABLE: &str = "TICKCAST_TOKEN";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct TokenArguments {
    /// Token for a server with authentication: a key (ID.SECRET) or a JSON Web Token. Other users
    /// of the machine see it in the list of processes; prefer --token-file, or the environment
    /// variable `TICKCAST_TOKEN`
    #[arg(long, value_name = "TOKEN", value_parser = token, conflicts_with = "token_file")]
    token: Option<Token>,
    /// File with the token; read for each connection, and again before the token expires
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

/// Text that is checked when it is used, so that no error shows it.
#[expect(clippy::unnecessary_wraps, reason = "the form of a value parser")]
fn token(text: &str) -> Result<Token, std::convert::Infallible> {
    Ok(Token::new(text))
}

impl TokenArguments {
    /// True if an option names a token; the environment does not count.
    pub(super) const fn is_given(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    /// Token to present: of an option, or else of the environment.
    pub(super) fn token(&self) -> Option<Token> {
        if let Some(path) = &self.token_file {
            return Some(Token::file(path));
        }
        let of_environment = || std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        self.token
            .clone()
            .or_else(|| of_environment().map(Token::new))
    }

    /// Origin of the token, for errors; `None`: there is no token.
    fn origin(&self) -> Option<String> {
        let name = match (&self.token, &self.token_file) {
            (Some(_), _) => "--token".to_owned(),
            (_, Some(path)) => format!("--token-file {}", path.display()),
            (None, None) => VARIABLE.to_owned(),
        };
        self.token().map(|_token| name)
    }

    /// Remedy for a refusal of the credentials, as an appendix of the server's message.
    pub(super) fn remedy(&self, refusal: Refusal) -> String {
        const GIVE: &str = "give a token by --token-file PATH, --token TOKEN or TICKCAST_TOKEN";
        let text = match (refusal, self.origin()) {
            (_, None) => GIVE.to_owned(),
            (Refusal::Rejected, Some(origin)) => {
                format!("{origin} needs a token that this server accepts now")
            }
            (Refusal::Forbidden, Some(origin)) => {
                format!("{origin} needs a token whose role has this right")
            }
        };
        format!("; {text}")
    }
}

/// Refusal of credentials by a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token, a wrong one, or one that has expired.
    Rejected,
    /// The role of the token lacks a right.
    Forbidden,
}

impl Refusal {
    /// Refusal by an HTTP response; 403 has other reasons as well.
    pub(super) fn of_response(status: u16, body: &str) -> Option<Self> {
        match status {
            401 => Some(Self::Rejected),
            403 if body.starts_with("not entitled") => Some(Self::Forbidden),
            _ => None,
        }
    }

    /// Refusal by a code of the protocol.
    pub(super) fn of_code(code: u16) -> Option<Self> {
        let rejected = [Code::AuthRequired, Code::AuthFailed, Code::AuthTimeout];
        let is_rejected = rejected.iter().any(|known| known.number() == code);
        is_rejected.then_some(Self::Rejected)
    }

    /// Refusal by the error of a connection.
    pub(super) fn of_error(error: &ClientError) -> Option<Self> {
        match error {
            ClientError::Refused { status, reason } => Self::of_response(*status, reason),
            ClientError::Closed { code, .. } => Self::of_code(code.checked_sub(CLOSE_BASE)?),
            _ => None,
        }
    }
}
