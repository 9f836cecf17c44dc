//! Addresses of feeds, as people write them.

use std::fmt;
use std::str::FromStr;

use crate::market::excerpt;

/// Path of the feed on a server without a path prefix.
const FEED_PATH: &str = "/v1/feed";
/// Other routes of a server; an address that ends in one means the feed beside it.
const OTHER_ROUTES: [&str; 5] = [
    "/metrics",
    "/healthz",
    "/readyz",
    "/v1/instruments",
    "/v1/snapshot",
];

/// Schemes of addresses, and whether each means TLS.
const SCHEMES: [(&str, bool); 4] = [
    ("ws://", false),
    ("http://", false),
    ("wss://", true),
    ("https://", true),
];

/// A feed's address: `HOST:PORT`, or a URL with an optional path prefix. `wss://` and `https://`
/// mean TLS.
///
/// ```
/// use tickcast::client::FeedUrl;
///
/// let feed: FeedUrl = "127.0.0.1:8080".parse()?;
/// assert_eq!(feed.to_string(), "ws://127.0.0.1:8080/v1/feed");
/// let behind_proxy: FeedUrl = "http://example.com/market/".parse()?;
/// assert_eq!(behind_proxy.to_string(), "ws://example.com:80/market/v1/feed");
/// let encrypted: FeedUrl = "https://example.com".parse()?;
/// assert_eq!(encrypted.to_string(), "wss://example.com:443/v1/feed");
/// # Ok::<(), tickcast::client::FeedUrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedUrl {
    host: String,
    path: String,
    is_tls: bool,
}

/// An address that names no feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedUrlError {
    /// Neither a host with a port nor a URL. Contains the beginning of the address, without a query,
    /// which may hold a secret.
    #[error(
        "invalid feed address \"{0}\": expected HOST:PORT, ws://HOST:PORT/v1/feed or wss://HOST:PORT/v1/feed"
    )]
    Form(String),
}

impl FeedUrl {
    /// `HOST:PORT`, to connect to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// True for `wss://` and `https://`.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Path of the WebSocket.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for FeedUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        write!(out, "{scheme}://{}{}", self.host, self.path)
    }
}

fn has_port(host: &str) -> bool {
    let port = host.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

impl FromStr for FeedUrl {
    type Err = FeedUrlError;
    fn from_str(text: &str) -> Result<Self, FeedUrlError> {
        let invalid = || {
            let shown = text.split(['?', '#']).next().unwrap_or_default();
            FeedUrlError::Form(excerpt(shown))
        };
        let url = SCHEMES
            .into_iter()
            .find_map(|(scheme, is_tls)| Some((text.strip_prefix(scheme)?, is_tls)));
        let (rest, is_tls) = url.unwrap_or((text, false));
        let (host, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let is_plain = |part: &str| part.chars().all(|c| c.is_ascii_graphic() && c != '\\');
        if !is_plain(rest) || path.contains(['?', '#']) {
            return Err(invalid());
        }
        let host = match (has_port(host), url) {
            (true, _) => host.to_owned(),
            (false, Some(_)) if !host.is_empty() && !host.ends_with(':') => {
                format!("{host}:{}", if is_tls { 443 } else { 80 })
            }
            _ => return Err(invalid()),
        };
        if host.starts_with(':') {
            return Err(invalid());
        }
        let prefix = OTHER_ROUTES
            .into_iter()
            .chain([FEED_PATH])
            .find_map(|route| path.strip_suffix(route))
            .unwrap_or_else(|| path.trim_end_matches('/'));
        Ok(Self {
            host,
            path: format!("{prefix}{FEED_PATH}"),
            is_tls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_printed_by_the_server_parses_as_a_feed_url() {
        for text in [
            "127.0.0.1:8080",
            "ws://127.0.0.1:8080/v1/feed",
            "ws://127.0.0.1:8080",
            "http://127.0.0.1:8080/",
            "http://127.0.0.1:8080/healthz",
            "http://127.0.0.1:8080/metrics",
        ] {
            let feed: FeedUrl = text.parse().expect(text);
            assert_eq!(feed.to_string(), "ws://127.0.0.1:8080/v1/feed", "{text}");
        }
        let prefixed: FeedUrl = "ws://proxy.example/a/b/v1/feed".parse().expect("valid URL");
        assert_eq!(
            (prefixed.host(), prefixed.path()),
            ("proxy.example:80", "/a/b/v1/feed")
        );
        let encrypted: FeedUrl = "wss://proxy.example".parse().expect("valid URL");
        assert_eq!(encrypted.to_string(), "wss://proxy.example:443/v1/feed");
        assert!(encrypted.is_tls());
        let v6: FeedUrl = "[::1]:8080".parse().expect("valid address");
        assert_eq!(v6.host(), "[::1]:8080");
    }

    #[test]
    fn invalid_addresses_are_rejected_with_the_expected_form() {
        for text in [
            "",
            "localhost",
            ":8080",
            "http://",
            "a b:80",
            "ws://h:1/x?y",
            "h:99999",
            "wss://",
            "wsss://h",
        ] {
            let refused = text.parse::<FeedUrl>().expect_err(text);
            assert!(refused.to_string().contains("HOST:PORT"), "{refused}");
        }
        let long = format!("ws://\u{1b}[31m{}?ticket=secret", "a".repeat(100_000));
        let refused = long.parse::<FeedUrl>().expect_err("an invalid address");
        assert!(refused.to_string().len() < 250, "{refused}");
        assert!(!refused.to_string().contains('\u{1b}'), "{refused:?}");
        let secret = "ws://h:1/x?ticket=secret".parse::<FeedUrl>();
        let refused = secret.expect_err("a query is no part of an address");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}
