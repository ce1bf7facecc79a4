//! `/events`: snapshots of the gateway and its servers, once a second, for the web console.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use dkvs_client::CallerId;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use super::app::App;
use super::client_error::overloaded;
use super::counts::Counts;
use super::document::Endless;
use super::fair::NoSlot;
use super::feed::{LastSnapshot, Subscription};
use super::parameters;
use super::problem::Problem;
use super::servers::probe_servers;
use super::snapshot::Snapshot;
use crate::tokens::Tokens;

/// Between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// The beginning of a stream: how soon a browser reconnects when it ends.
const BEGINNING: &[u8] = b"retry: 1000\n\n";

pub(super) async fn events(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let listener = listen(&app, caller.id())?;
    let beginning = stream::once(ready(Bytes::from_static(BEGINNING)));
    let snapshots = stream::unfold(listener, async |mut listener| {
        let snapshot = listener.next().await?;
        Some((snapshot, listener))
    });
    let events = beginning.chain(snapshots).map(Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (headers, Body::from_stream(events)).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

fn listen(app: &App, caller: CallerId) -> Result<Listener, Problem> {
    let start = |sender| tokio::spawn(publish(app.clone(), sender)).abort_handle();
    let subscription = app.gateway.feed.subscribe(caller, start);
    let subscription = subscription.map_err(|no_slot| {
        let (refused, what) = match no_slot {
            NoSlot::Full => (
                &app.counts.listeners_refused,
                "as many as may listen to its events do so",
            ),
            NoSlot::OfCaller => (
                &app.counts.listeners_refused_of_caller,
                "this caller listens to its events as often as one may",
            ),
        };
        refused.fetch_add(1, Ordering::Relaxed);
        overloaded(what)
    })?;
    Ok(Listener {
        subscription,
        counts: Arc::clone(&app.counts),
        tokens: app.gate.tokens_from_now(),
        draining: app.draining.clone(),
    })
}

struct Listener {
    subscription: Subscription,
    counts: Arc<Counts>,
    tokens: Option<watch::Receiver<Tokens>>,
    draining: CancellationToken,
}

impl Listener {
    /// The next snapshot. None when the gateway is to end; when another caller has its slot; and when
    /// its tokens have been replaced, so that a revoked token does not go on listening.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                changed = self.subscription.snapshots.changed() => changed.ok()?,
                () = replaced(self.tokens.as_mut()) => return None,
                () = self.draining.cancelled() => return None,
                () = self.subscription.slot.displaced() => {
                    self.counts.listeners_displaced.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
            }
            if let Some(snapshot) = &*self.subscription.snapshots.borrow_and_update() {
                return Some(snapshot.clone());
            }
        }
    }
}

/// Waits until there are other tokens; for ever where there are none, or nothing replaces them.
async fn replaced(tokens: Option<&mut watch::Receiver<Tokens>>) {
    let is_replaced = match tokens {
        Some(tokens) => tokens.changed().await.is_ok(),
        None => false,
    };
    if !is_replaced {
        pending::<()>().await;
    }
}

/// Makes a snapshot at once and then every second.
async fn publish(app: App, sender: watch::Sender<LastSnapshot>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let workers = app.workers();
    let mut servers = Vec::new();
    loop {
        ticks.tick().await;
        // A gateway that is too busy to probe shows the last statuses.
        if let Ok(answered) = probe_servers(&app, CallerId::Internal).await {
            servers = answered;
        }
        let snapshot = Snapshot::new(&app, &workers, &servers);
        // Serializing cannot fail: all keys are text.
        if let Ok(json) = serde_json::to_string(&snapshot) {
            sender.send_replace(Some(format!("event: snapshot\ndata: {json}\n\n").into()));
        }
    }
}
