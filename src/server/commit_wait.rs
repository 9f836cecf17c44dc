//! Publish requests of a server that leads a cluster: each is answered once the shared log contains
//! its events.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::response::{HttpResponse, busy};
use super::{ClusterPart, Server};
use crate::cluster::Leadership;
use crate::config::{PUBLISH_REPORT_BYTES, PUBLISH_WAITS};
use crate::metrics::Refused;
use crate::source::push::PushInlet;

/// Time for the last publish requests when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Advice behind an answer that leaves the outcome open.
pub(super) const SEND_AGAIN: &str = "it is unknown whether the shared log contains the events: send them again with the same `id` and `ts`, if they have any; the rule on_duplicate of the source rejects repeated trades";

/// Place among the publish requests that wait for the shared log or for the leader.
pub(super) fn acquire_wait(server: &Server) -> Result<OwnedSemaphorePermit, HttpResponse> {
    let acquired = Arc::clone(&server.publish_waits).try_acquire_owned();
    acquired.map_err(|_full| {
        server.metrics.count_refused(Refused::Busy);
        busy("too many concurrent publish requests")
    })
}

/// Wait of a publish request for the shared log.
#[derive(Debug)]
pub(super) struct CommitWait {
    term: Leadership,
    timeout: Duration,
    /// Max size of a response, which has to fit into a message of NATS.
    report_bytes_max: usize,
    permit: OwnedSemaphorePermit,
}

impl CommitWait {
    /// Begins before events are published; `None` on a standalone server, which does not wait.
    pub(super) fn begin(server: &Server) -> Result<Option<Self>, HttpResponse> {
        let Some(ClusterPart { status, link, .. }) = &server.cluster else {
            return Ok(None);
        };
        let Some(term) = status.leadership() else {
            return Err(busy("this publisher no longer leads the cluster"));
        };
        Ok(Some(Self {
            term,
            timeout: link.commit_timeout(),
            report_bytes_max: PUBLISH_REPORT_BYTES.min(link.message_bytes_max() / 2),
            permit: acquire_wait(server)?,
        }))
    }

    /// Max size of a response, in bytes.
    pub(super) const fn report_bytes_max(&self) -> usize {
        self.report_bytes_max
    }

    /// The response, once the shared log contains all events that were published before.
    pub(super) async fn finish(self, inlet: &PushInlet, response: HttpResponse) -> HttpResponse {
        let Self {
            mut term,
            timeout,
            permit,
            ..
        } = self;
        let committed = async {
            match inlet.position().await {
                Some(next) => term.committed(next).await,
                None => false,
            }
        };
        let response = match tokio::time::timeout(timeout, committed).await {
            Ok(true) => response,
            Ok(false) => busy(&format!(
                "this publisher has stopped leading the cluster; {SEND_AGAIN}"
            )),
            Err(_late) => busy(&format!(
                "no confirmation by the shared log within cluster.publish_timeout; {SEND_AGAIN}"
            )),
        };
        response.map(|body| body.with_permit(permit))
    }
}

impl Server {
    /// Waits for the responses to the publish requests of a server that no longer leads.
    pub async fn finish_publishes(&self) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let answered = async {
            // The permits belong to requests without a response.
            let _all = self.publish_waits.acquire_many(PUBLISH_WAITS as u32).await;
            cluster.link.flush().await;
        };
        // Clients that do not read their responses do not delay the stop.
        let _late = tokio::time::timeout(STOP_TIMEOUT, answered).await;
    }
}
