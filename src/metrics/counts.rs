//! Counts of events by a label.

use super::Metrics;
use super::labels::{AuthEvent, PanicIn, Refused, TLS_VERSIONS};
use crate::protocol::Code;

impl Metrics {
    /// Counts a connection closed by the server.
    pub fn count_close(&self, code: Code) {
        self.closed.with_label_values(&[code.name()]).inc();
    }

    /// Counts an event in the authentication of a client.
    pub fn count_auth(&self, event: AuthEvent) {
        self.authentications
            .with_label_values(&[event.name()])
            .inc();
    }

    /// Counts a rejected or aborted connection or request.
    pub fn count_refused(&self, reason: Refused) {
        let labels = [reason.name()];
        self.handshakes_rejected.with_label_values(&labels).inc();
    }

    /// Counts a completed TLS handshake; `is_newest` for TLS 1.3.
    pub fn count_tls_handshake(&self, is_newest: bool) {
        let version = TLS_VERSIONS[usize::from(is_newest)];
        self.tls_handshakes.with_label_values(&[version]).inc();
    }

    /// Counts a request answered with an error.
    pub fn count_error(&self, code: Code) {
        self.request_errors.with_label_values(&[code.name()]).inc();
    }

    /// Counts a panic while serving one connection.
    pub fn count_panic(&self, part: PanicIn) {
        self.panics.with_label_values(&[part.name()]).inc();
    }
}
