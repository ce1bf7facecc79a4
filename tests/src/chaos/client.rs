//! A client: one request after another, each recorded with its reply.
//!
//! Keeps one invariant of histories: no value is written by two operations. So a request is never
//! sent twice behind the history's back, and one that is sent again under its own tag stays the
//! same operation.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value as Json;

use super::level::Level;
use super::reply::{self, Surprise, Written};
use super::stage::Stage;
use crate::history::{Action, Operation, Reply};
use crate::random::Random;
use crate::waiting::PATIENCE;

/// How often a write whose fate is unknown is sent again at most.
const REPETITIONS_MAX: usize = 3;

/// How many of a hundred requests give the gateway so little time that they often end in the
/// middle, and how many clients of a hundred do not wait for the end.
const HASTY_PERCENT: usize = 12;
const IMPATIENT_PERCENT: usize = 3;

/// How many writes of a hundred come under a tag of the client's, as if a gateway had sent them
/// before whose clock is ahead. Gateways whose clocks take it over are then ahead of the others.
const AHEAD_PERCENT: usize = 2;

/// A client of all gateways, of which it prefers one until that is gone.
pub(super) struct Client {
    number: u32,
    stage: Arc<Stage>,
    preferred: usize,
    http: reqwest::Client,
    random: Random,
    history: Vec<Operation>,
}

/// The result of one request.
enum Heard {
    Reply(u16, Json),
    /// It was not sent: no connection came about.
    NotSent,
    /// It may have been sent, and no reply will come.
    Nothing,
}

impl Client {
    pub(super) fn new(number: u32, stage: Arc<Stage>, seed: u64) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A library that sends a write again makes another write of it.
            .retry(reqwest::retry::never())
            .timeout(PATIENCE)
            .build();
        Self {
            number,
            preferred: number as usize % stage.gateways(),
            stage,
            http: http.expect("a client"),
            random: Random::new(seed),
            history: Vec::new(),
        }
    }

    /// Asks until it is over. A surprise ends it for all.
    pub(super) async fn run(mut self) -> (Vec<Operation>, Option<Surprise>) {
        while !self.stage.is_over() {
            let key = self.stage.draw_key(&mut self.random);
            let asked = match self.random.below(100) {
                0..65 => self.read(key).await,
                65..88 => {
                    self.write(key, Action::Write(self.stage.next_value()))
                        .await
                }
                _ => self.write(key, Action::Delete).await,
            };
            if let Err(surprise) = asked {
                self.stage.end();
                return (self.history, Some(surprise));
            }
            self.stage.count_answered();
            // Without a moment's thought a calm second would have as many requests as all the
            // faults together.
            let thought = Duration::from_millis(self.random.below(10) as u64);
            tokio::time::sleep(thought).await;
        }
        (self.history, None)
    }

    /// Reads a key from a gateway, with all the time that one read may take.
    pub(super) async fn read_from(&mut self, gateway: usize, key: u32) -> Result<Reply, Surprise> {
        let url = self.stage.url(gateway, key, "timeout_ms=5000");
        self.read_at(url, key, None).await
    }

    /// The history since it was taken last.
    pub(super) fn take_history(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.history)
    }

    async fn read(&mut self, key: u32) -> Result<(), Surprise> {
        let gateway = self.draw_gateway();
        let query = self.draw_timeout();
        let patience = self.draw_patience();
        let url = self.stage.url(gateway, key, &query);
        self.read_at(url, key, patience).await.map(drop)
    }

    async fn read_at(
        &mut self,
        url: String,
        key: u32,
        patience: Option<Duration>,
    ) -> Result<Reply, Surprise> {
        let invoked = self.stage.now();
        let heard = ask(self.http.get(url), patience).await;
        let returned = self.stage.now();
        let (reply, returned) = match heard {
            Heard::Reply(status, json) => {
                let reply = reply::to_read(self.stage.level, status, &json)?;
                (reply, Some(returned))
            }
            Heard::NotSent => {
                self.turn_away();
                (Reply::Unknown, Some(returned))
            }
            Heard::Nothing => (Reply::Unknown, None),
        };
        self.record(key, Action::Read, invoked, returned, reply);
        Ok(reply)
    }

    /// Writes or deletes. While its fate is unknown it may be sent again, to any gateway.
    pub(super) async fn write(&mut self, key: u32, action: Action) -> Result<(), Surprise> {
        // Before its tag is minted: what is minted meanwhile and is greater comes later.
        let invoked = self.stage.now();
        let mut tag = self.draw_tag();
        let mut repetitions = 0;
        let (reply, returned) = loop {
            let request = self.draw_write(key, action, tag.as_deref());
            let patience = self.draw_patience();
            let heard = ask(request, patience).await;
            let returned = self.stage.now();
            let (has_tag, is_repeated) = (tag.is_some(), repetitions > 0);
            let Written {
                reply,
                tag: told_tag,
            } = match heard {
                Heard::Reply(status, json) => {
                    reply::to_write(self.stage.level, (has_tag, is_repeated), status, &json)?
                }
                Heard::NotSent => {
                    self.turn_away();
                    Written {
                        reply: reply::not_done(is_repeated),
                        tag: None,
                    }
                }
                Heard::Nothing => break (Reply::Unknown, None),
            };
            tag = tag.or(told_tag);
            let goes_on = reply == Reply::Unknown
                && tag.is_some()
                && self.stage.level == Level::Linearizable
                && repetitions < REPETITIONS_MAX
                && self.random.below(2) == 0;
            if !goes_on {
                break (reply, Some(returned));
            }
            repetitions += 1;
            self.stage.count_repeated();
        };
        self.record(key, action, invoked, returned, reply);
        Ok(())
    }

    fn record(
        &mut self,
        key: u32,
        action: Action,
        invoked: u64,
        returned: Option<u64>,
        reply: Reply,
    ) {
        self.history.push(Operation {
            client: self.number,
            key,
            action,
            invoked,
            returned,
            reply,
        });
    }

    fn draw_write(&mut self, key: u32, action: Action, tag: Option<&str>) -> RequestBuilder {
        let gateway = self.draw_gateway();
        let mut query = self.draw_timeout();
        if let Some(tag) = tag {
            query = format!("{query}&tag={tag}");
        }
        let url = self.stage.url(gateway, key, &query);
        match action {
            Action::Write(value) => self.http.put(url).body(reply::text_of(value)),
            Action::Delete => self.http.request(Method::DELETE, url),
            Action::Read | Action::Conditional { .. } => unreachable!("it is no plain write"),
        }
    }

    /// A tag from ahead, if this is one of those times.
    fn draw_tag(&mut self) -> Option<String> {
        let is_ahead = self.random.below(100) < AHEAD_PERCENT;
        if !is_ahead || self.stage.level != Level::Linearizable {
            return None;
        }
        let tag = self.stage.mint_ahead(self.random.number())?;
        Some(tag.to_string())
    }

    /// The one it prefers, or one time in four any.
    fn draw_gateway(&mut self) -> usize {
        match self.random.below(4) {
            0 => self.random.below(self.stage.gateways()),
            _ => self.preferred,
        }
    }

    /// A gateway is gone: it prefers another from now on.
    fn turn_away(&mut self) {
        self.preferred = (self.preferred + 1) % self.stage.gateways();
    }

    /// How long the gateway is to try.
    fn draw_timeout(&mut self) -> String {
        let ms = match self.random.below(100) < HASTY_PERCENT {
            true => 1 + self.random.below(8),
            false => 40 + self.random.below(200),
        };
        format!("timeout_ms={ms}")
    }

    /// How long it waits itself, if it is one of those times when it goes away.
    fn draw_patience(&mut self) -> Option<Duration> {
        let goes_away = self.random.below(100) < IMPATIENT_PERCENT;
        goes_away.then(|| Duration::from_micros(self.random.below(8_000) as u64))
    }
}

/// Sends a request and takes the whole reply, unless that takes longer than there is patience.
async fn ask(request: RequestBuilder, patience: Option<Duration>) -> Heard {
    let asked = async {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Heard::NotSent,
            Err(_) => return Heard::Nothing,
        };
        let status = response.status().as_u16();
        match response.bytes().await {
            Ok(body) => Heard::Reply(status, serde_json::from_slice(&body).unwrap_or_default()),
            Err(_) => Heard::Nothing,
        }
    };
    match patience {
        Some(patience) => {
            let heard = tokio::time::timeout(patience, asked).await;
            heard.unwrap_or(Heard::Nothing)
        }
        None => asked.await,
    }
}
