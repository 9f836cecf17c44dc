//! Texts of HTTP requests and of addresses: queries, hosts, origins, PROXY headers and URLs.

use tickcast::client::FeedUrl;
use tickcast::config::{Authority, WebOrigin};
use tickcast::printable::shortened;
use tickcast::server::doors::{feed_query, proxy_header, snapshot_query};

use super::{MILLIS, OF_A_MESSAGE, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "web",
    check,
    work,
    memory: OF_A_MESSAGE,
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"topics=",
        b"events=",
        b"max_message=",
        b"encoding=json",
        b"%2c",
        b"%00",
        b"%",
        b"&",
        b",",
        b"ws://",
        b"wss://",
        b"http://",
        b"[::1]",
        b":8080",
        b"/v1/feed",
        b"PROXY TCP4 ",
        b"PROXY TCP6 ",
        b"PROXY UNKNOWN",
        b"\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\x21\x11\x00\x0c",
        b"99999",
    ],
};

/// An address that is accepted is written as an address that is accepted again, as the same one.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok((client, rest)) = proxy_header(bytes) {
        assert!(rest < bytes.len(), "a header has a length: {client:?}");
        // Bytes behind the header do not matter.
        let own = &bytes[..bytes.len() - rest];
        assert_eq!(proxy_header(own).ok(), Some((client, 0)));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match text.parse::<FeedUrl>() {
        Ok(url) => {
            let again = url.to_string().parse::<FeedUrl>();
            assert_eq!(again.as_ref(), Ok(&url));
            assert!(url.path().starts_with('/') && !url.host().is_empty());
        }
        // The message quotes the whole address, which is an argument of a command.
        Err(error) => assert_printable(&shortened(&error.to_string(), 900)),
    }
    if let Some(authority) = Authority::parse(text) {
        assert_eq!(
            Authority::parse(&authority.to_string()),
            Some(authority.clone())
        );
        assert!(!authority.host.contains(['/', '@', ' ', '\r', '\n', '*']));
    }
    if let Some(origin) = WebOrigin::parse(text) {
        assert!(origin.authority.port.is_some());
    }
    if let Ok((topics, events)) = snapshot_query(text) {
        assert!((1..=100).contains(&topics.len()));
        assert!(topics.iter().all(|topic| !topic.is_empty()) && events != Some(0));
    }
    let _encoding_and_limit = feed_query(text);
}

pub(crate) fn work(bytes: &[u8]) {
    let _client = proxy_header(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _url = text.parse::<FeedUrl>();
    let _host = Authority::parse(text);
    let _origin = WebOrigin::parse(text);
    let _snapshot = snapshot_query(text);
    let _feed = feed_query(text);
}
