//! Clients that put and get while something else happens, of whose requests none may fail.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::http::{client, get, put};
use crate::waiting::{patiently, until};

/// One client for each of some keys, which puts a value and gets it back, again and again.
pub struct Load {
    ended: Arc<AtomicBool>,
    /// By client, how often it got its value back.
    answered: Arc<[AtomicUsize]>,
    clients: JoinSet<()>,
}

impl Load {
    /// Begins: a client for each URL of a key.
    pub fn on(urls: impl Iterator<Item = String>) -> Self {
        Self::with_values(urls, 0)
    }

    /// The same, with values of so many bytes at least.
    pub fn with_values(urls: impl Iterator<Item = String>, bytes_min: usize) -> Self {
        let urls: Vec<String> = urls.collect();
        let ended = Arc::new(AtomicBool::new(false));
        let answered: Arc<[AtomicUsize]> = urls.iter().map(|_| AtomicUsize::new(0)).collect();
        let mut clients = JoinSet::new();
        for (number, url) in urls.into_iter().enumerate() {
            let (ended, answered) = (Arc::clone(&ended), Arc::clone(&answered));
            clients.spawn(async move {
                let client = client();
                let mut round = 0;
                while !ended.load(Ordering::Relaxed) {
                    round += 1;
                    let mut value = format!("value {round} of {number} ");
                    value.extend(iter::repeat_n('v', bytes_min.saturating_sub(value.len())));
                    let put = put(&client, url.clone(), value.clone()).await;
                    assert_eq!(put.status, 200, "{put:?}");
                    let get = get(&client, url.clone()).await;
                    assert!(get.json["value"] == value, "{}", get.status);
                    answered[number].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            ended,
            answered,
            clients,
        }
    }

    /// Waits until every client has got its value back five times more. Fails if a request did.
    pub async fn progress(&mut self) {
        let count = |answered: &AtomicUsize| answered.load(Ordering::Relaxed);
        let goal: Vec<usize> = self
            .answered
            .iter()
            .map(|answered| count(answered) + 5)
            .collect();
        let Self {
            answered, clients, ..
        } = self;
        until("every client gets replies", async || {
            if let Some(failed) = clients.try_join_next() {
                failed.expect("every request succeeds");
            }
            let answered = answered.iter().map(count);
            answered.zip(&goal).all(|(count, goal)| count >= *goal)
        })
        .await;
    }

    /// Ends. Fails if a request did.
    pub async fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        patiently(self.clients.join_all()).await;
    }
}
