//! PROXY protocol header, versions 1 and 2, by which a load balancer that works on TCP names the
//! client's address (config `proxy_protocol`).

use std::io;
use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature of version 2; no header of version 1 is shorter.
const SIGNATURE: &[u8] = v2::PROTOCOL_PREFIX;
/// Bytes of version 2 before its addresses: signature, version, family, length.
const BINARY_BYTES: usize = SIGNATURE.len() + 4;
/// Max length of version 1, by its specification.
const TEXT_BYTES_MAX: usize = 107;
/// Max bytes of addresses and extensions of version 2.
const EXTENSIONS_BYTES_MAX: usize = 2048;

/// Problem of a header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The connection failed or ended.
    #[error("connection ended in its PROXY header")]
    Ended(#[from] io::Error),
    /// The connection is not from a trusted proxy.
    #[error("PROXY header from an address that is not in trusted_proxies")]
    Untrusted,
    /// The header was not complete in time.
    #[error("PROXY header incomplete within limits.handshake")]
    Late,
    /// The bytes are no header.
    #[error("no PROXY header of version 1 or 2 (proxy_protocol: required)")]
    Invalid,
    /// The header exceeds its bound.
    #[error("PROXY header too long: expected at most {0} bytes")]
    TooLong(usize),
}

/// Reads the header at the start of a connection, and nothing behind it. `None` if the connection
/// is the load balancer's own, for example a health check.
pub(super) async fn read(
    socket: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = vec![0; SIGNATURE.len()];
    socket.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_more(socket, &mut header, BINARY_BYTES).await?;
        let [.., high, low] = header[..] else {
            return Err(HeaderError::Invalid);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > EXTENSIONS_BYTES_MAX {
            return Err(HeaderError::TooLong(EXTENSIONS_BYTES_MAX));
        }
        read_more(socket, &mut header, BINARY_BYTES + length).await?;
    } else if header.starts_with(b"PROXY ") {
        // Byte by byte, because the bytes behind the line belong to the client.
        while !header.ends_with(b"\r\n") {
            if header.len() == TEXT_BYTES_MAX {
                return Err(HeaderError::TooLong(TEXT_BYTES_MAX));
            }
            let next = header.len() + 1;
            read_more(socket, &mut header, next).await?;
        }
    } else {
        return Err(HeaderError::Invalid);
    }
    client(&header)
}

async fn read_more(
    socket: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
    length: usize,
) -> io::Result<()> {
    let had = header.len();
    header.resize(length, 0);
    socket.read_exact(&mut header[had..]).await.map(|_| ())
}

/// Client named by a complete header.
fn client(header: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
                Some((ip.source_address, ip.source_port).into())
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
                Some((ip.source_address, ip.source_port).into())
            }
            (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => {
                None
            }
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(HeaderError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Client of a header, and the bytes left behind it.
    async fn parsed(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, usize) {
        let mut rest = bytes;
        let client = read(&mut rest).await;
        (client, rest.len())
    }

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, addresses, b"GET /"].concat()
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_its_bytes() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 9, 99);
        let with_extension = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (bytes, client) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\nGET /".to_vec(),
                Some("192.0.2.7:4660"),
            ),
            (
                b"PROXY TCP6 2001::9 ::1 99 80\r\nGET /".to_vec(),
                Some("[2001::9]:99"),
            ),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("192.0.2.7:4660")),
            (binary(0x21, 0x11, &with_extension), Some("192.0.2.7:4660")),
            (binary(0x21, 0x21, &v6), Some("[2001::9]:99")),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0x00, &[]), None),
        ] {
            let (found, left) = parsed(&bytes).await;
            let client = client.map(|text| text.parse().expect("an address"));
            assert_eq!((found.expect("a header"), left), (client, 5), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn other_bytes_and_long_headers_are_rejected_without_reading_on() {
        let endless = format!("PROXY TCP4 {}", "1".repeat(10_000));
        let (found, left) = parsed(endless.as_bytes()).await;
        assert!(matches!(found, Err(HeaderError::TooLong(TEXT_BYTES_MAX))));
        assert_eq!(endless.len() - left, TEXT_BYTES_MAX);
        let huge = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &vec![0; 70_000]].concat();
        let (found, left) = parsed(&huge).await;
        assert!(matches!(found, Err(HeaderError::TooLong(_))));
        assert_eq!(huge.len() - left, BINARY_BYTES);
        for bad in [
            &b"GET /v1/feed HTTP/1.1\r\n"[..],
            b"PROXY TCP4 999.0.2.7 10.0.0.1 1 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 80\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 80\r\n",
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 4]),
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0],
        ] {
            assert!(
                matches!(parsed(bad).await.0, Err(HeaderError::Invalid)),
                "{bad:?}"
            );
        }
        let cut = parsed(b"PROXY TCP4 192.0.2").await.0;
        assert!(matches!(cut, Err(HeaderError::Ended(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            start in proptest::sample::select(vec![&b""[..], b"PROXY ", SIGNATURE]),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let _unused = runtime.block_on(parsed(&[start, &bytes].concat()));
        }
    }
}
