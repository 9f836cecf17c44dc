//! Requests whose end or target two parties may understand differently, and other heads that are
//! not a handshake. `SMUGGLED` is a request that one of the parties might see.

/// Placeholder of the smuggled request.
pub(crate) const SMUGGLED: &str = "SMUGGLED";

/// Requests that the server refuses: with one response at most, and then it closes.
pub(crate) const AMBIGUOUS: [(&str, &str); 34] = [
    (
        "both lengths",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "both lengths, coding first",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "two lengths",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nSMUGGLED",
    ),
    (
        "signed length",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: +0\r\n\r\nSMUGGLED",
    ),
    (
        "hexadecimal length",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x0\r\n\r\nSMUGGLED",
    ),
    (
        "negative length",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\nSMUGGLED",
    ),
    (
        "length beyond 64 bits",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616\r\n\r\nSMUGGLED",
    ),
    (
        "list of lengths",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, 44\r\n\r\nSMUGGLED",
    ),
    (
        "empty length",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: \r\n\r\nSMUGGLED",
    ),
    (
        "length with a space before the colon",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length : 44\r\n\r\nSMUGGLED",
    ),
    (
        "unknown coding",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "coding that is not the last",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "coding with a space before the colon",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "folded coding",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "coding after a vertical tab",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "coding of HTTP/1.0",
        "POST /v1/publish HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "signed chunk",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\nSMUGGLED",
    ),
    (
        "chunk beyond 64 bits",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\nSMUGGLED",
    ),
    (
        "header after a bare line feed",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: a\nContent-Length: 44\r\n\r\nSMUGGLED",
    ),
    (
        "header after a bare carriage return",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: a\rContent-Length: 44\r\n\r\nSMUGGLED",
    ),
    (
        "folded line",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: a\r\n b\r\n\r\n",
    ),
    (
        "space before the colon",
        "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    ),
    (
        "bare line feeds",
        "GET / HTTP/1.1\nHost: localhost\n\nSMUGGLED",
    ),
    (
        "NUL in a value",
        "GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    ),
    (
        "absolute form",
        "GET http://evil.example/v1/instruments HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    (
        "other host in absolute form",
        "GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    ),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    (
        "CONNECT",
        "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n",
    ),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
    (
        "rebinding",
        "GET /v1/instruments HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n",
    ),
    (
        "handshake with a body",
        "GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n\r\nabcde",
    ),
];
