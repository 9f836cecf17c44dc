//! Address of a client behind trusted proxies, by `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// True if an address is one of the trusted proxies.
pub(super) fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// Address of the client of a request from a trusted proxy: the last address of `X-Forwarded-For`
/// that is no trusted proxy. Addresses before it were sent by the client itself and mean nothing.
/// Without a valid address, the last known proxy.
pub(super) fn client(headers: &HeaderMap, trusted: &[IpNet], proxy: IpAddr) -> IpAddr {
    let mut known = proxy;
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let addresses = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for address in addresses {
        let Some(address) = parse(address) else {
            return known;
        };
        known = address;
        if !is_trusted(trusted, known) {
            return known;
        }
    }
    known
}

/// Address with or without a port; some proxies add one.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = text
        .parse()
        .or_else(|_| text.parse().map(|address: SocketAddr| address.ip()))
        .ok()
        .or_else(|| {
            let inside = text.strip_prefix('[')?.strip_suffix(']')?;
            inside.parse().ok()
        })?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let client = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, line.parse().expect("a header value"));
            }
            client(&headers, &trusted, IpAddr::from([10, 0, 0, 1])).to_string()
        };
        for (lines, address) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
            (&["127.0.0.1", "192.0.2.7"], "192.0.2.7"),
            (&["evil\"; drop, 192.0.2.7 ,10.9.9.9"], "192.0.2.7"),
            (&["192.0.2.7", "fd00::1, 10.2.2.2"], "192.0.2.7"),
            (&["192.0.2.7:4711"], "192.0.2.7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            (&["192.0.2.7, unknown"], "10.0.0.1"),
            (&["192.0.2.7, , 10.2.2.2"], "10.2.2.2"),
            (&["10.5.5.5"], "10.5.5.5"),
        ] {
            assert_eq!(client(lines), address, "{lines:?}");
        }
    }
}
