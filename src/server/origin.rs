//! Whether a browser's page may open the feed: a page of another site must not use its visitor's place on the network.

use hyper::HeaderMap;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderValue, ORIGIN, VARY};

/// `Origin` absent (a program), the server's own, or any loopback origin where the server listens on loopback.
pub(super) fn is_allowed(headers: &HeaderMap, listens_on_loopback: bool) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    if headers.get_all(ORIGIN).iter().count() > 1 {
        return false;
    }
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let Some(authority) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    if own.is_some_and(|own| own.eq_ignore_ascii_case(authority)) {
        return true;
    }
    listens_on_loopback && is_loopback(authority)
}

/// Lets pages of an origin that may open the feed read an answer too (CORS).
pub(super) fn share(request: &HeaderMap, listens_on_loopback: bool, answer: &mut HeaderMap) {
    answer.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = request
        .get(ORIGIN)
        .filter(|_| is_allowed(request, listens_on_loopback))
    {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<hyper::http::uri::Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: Option<&str>, loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "feed.example:8080".parse().expect("a header value"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header value"));
        }
        is_allowed(&headers, loopback)
    }

    #[test]
    fn only_own_and_loopback_origins_pass() {
        assert!(allowed(None, false));
        assert!(allowed(Some("http://feed.example:8080"), false));
        assert!(allowed(Some("https://feed.example:8080"), false));
        assert!(allowed(Some("http://localhost:3000"), true));
        assert!(allowed(Some("http://[::1]:3000"), true));
        for evil in [
            "null",
            "http://evil.example",
            "http://feed.example:8080.evil",
            "http://feed.example",
            "http://localhost:3000",
        ] {
            assert!(!allowed(Some(evil), false), "{evil}");
        }
        for evil in [
            "null",
            "http://localhost.evil",
            "http://127.0.0.1.evil",
            "http://localhost@evil",
            "file://localhost",
        ] {
            assert!(!allowed(Some(evil), true), "{evil}");
        }
    }
}
