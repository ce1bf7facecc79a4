//! The results of a batch as its reply, in the order of its operations.
//!
//! Each holds the memory that it takes of the caller's share. A read for whose value there was no
//! memory is repeated when its turn in the reply has come: by then those before it have been
//! written, and have given theirs back. So a batch may be longer than the memory for it, and a
//! caller that reads slowly waits for its own results.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use dkvs_client::{CallerId, MemoryPermit, UNCOUNTED_BYTES_MAX};
use dkvs_common::kv::Key;
use futures_util::stream;

use crate::http::app::App;
use crate::http::client_error::no_memory_for_reply;
use crate::http::document::{BUFFERED_BYTES_MAX, Document, Json, buffered};
use crate::http::json::{json_of, json_text};
use crate::http::kv;
use crate::http::parameters::KeyParameters;
use crate::http::problem::Problem;
use crate::http::report::micros;

const BEGINNING: &[u8] = b"{\"results\":[";

/// A read that may be carried out more than once.
pub(super) struct BatchRead {
    pub(super) key: Key,
    pub(super) parameters: KeyParameters,
}

/// The result of one operation.
pub(super) struct BatchResult {
    /// As a member of the results; none if there was no memory for it.
    document: Option<Document>,
    /// What it is the result of, if that can be repeated.
    read: Option<BatchRead>,
}

impl BatchResult {
    /// Carries out a read.
    pub(super) async fn read(app: &App, read: BatchRead) -> Self {
        let document = match read.document(app).await {
            Ok(document) => Some(document),
            Err(problem) if problem.lacks_memory() => None,
            Err(problem) => Some(document_of_problem(problem)),
        };
        Self {
            document,
            read: Some(read),
        }
    }

    pub(super) fn of_write(written: Result<Bytes, Problem>) -> Self {
        match written {
            Ok(report) => {
                let report = report.slice(..report.trim_ascii_end().len());
                let mut document = Document::default();
                document.text(report);
                Self {
                    document: Some(of_status(200, "write", document)),
                    read: None,
                }
            }
            Err(problem) => Self::of_problem(problem),
        }
    }

    pub(super) fn of_problem(problem: Problem) -> Self {
        Self {
            document: Some(document_of_problem(problem)),
            read: None,
        }
    }
}

impl BatchRead {
    /// The result, with the memory that it takes.
    async fn document(&self, app: &App) -> Result<Document, Problem> {
        let Self { key, parameters } = self;
        let show = |found: kv::Found<'_>| Ok(found.json(key, UNCOUNTED_BYTES_MAX));
        let json = kv::read(app, key, parameters, show).await?;
        let memory = app.client.memory(parameters.options.caller);
        let bytes = match &json {
            Json::Text(text) => text.len(),
            // The value has its own.
            Json::Parts(document) => document.beside_values_bytes(),
        };
        let permit = memory.take(bytes).map_err(no_memory_for_reply)?;
        let mut document = of_status(200, "read", json.into_document());
        document.hold(permit);
        Ok(document)
    }
}

fn document_of_problem(problem: Problem) -> Document {
    let status = problem.status();
    let text = problem.document().to_string();
    of_status(status, "problem", text.into_bytes().into())
}

fn of_status(status: u16, name: &str, of: Document) -> Document {
    let mut document = Document::default();
    document.text(format!("{{\"status\":{status},\"{name}\":"));
    document.append(of);
    document.text("}");
    document
}

/// The reply with these results, in parts if it is long. Reads without a result are carried out on
/// the way.
pub(super) fn respond(
    app: &App,
    caller: CallerId,
    results: Vec<BatchResult>,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    if results.iter().all(|result| result.document.is_some()) {
        let mut document = Document::default();
        document.text(BEGINNING);
        for (number, result) in results.into_iter().enumerate() {
            if number > 0 {
                document.text(",");
            }
            document.append(result.document.unwrap_or_default());
        }
        document.text(ending(started));
        return json_of(
            (&app.client, caller),
            HeaderMap::new(),
            Json::Parts(document),
        );
    }
    let memory = app.client.memory(caller);
    let permit = memory.take(BUFFERED_BYTES_MAX);
    let rest = RestOfReply {
        app: app.clone(),
        permit: Arc::new(permit.map_err(no_memory_for_reply)?),
        results: results.into(),
        written: Document::from(BEGINNING.to_vec()),
        is_first: true,
        is_ended: false,
        started,
    };
    let pieces = stream::unfold(rest, async |mut rest| {
        let piece = rest.next_piece().await?;
        Some((Ok::<_, Infallible>(piece), rest))
    });
    Ok(json_text(
        HeaderMap::new(),
        Body::from_stream(Box::pin(pieces)),
    ))
}

fn ending(started: Instant) -> String {
    format!("],\"elapsed_us\":{}}}\n", micros(started.elapsed()))
}

/// What is still to be written.
struct RestOfReply {
    app: App,
    results: VecDeque<BatchResult>,
    /// What is being written now.
    written: Document,
    is_first: bool,
    is_ended: bool,
    started: Instant,
    /// For what is buffered.
    permit: Arc<MemoryPermit>,
}

impl RestOfReply {
    async fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.written.poll_piece() {
                return Some(buffered(piece, &self.permit));
            }
            self.written = match self.results.pop_front() {
                Some(result) => {
                    let mut next = Document::default();
                    if !std::mem::take(&mut self.is_first) {
                        next.text(",");
                    }
                    next.append(self.document(result).await);
                    next
                }
                None if self.is_ended => return None,
                None => {
                    self.is_ended = true;
                    ending(self.started).into_bytes().into()
                }
            };
        }
    }

    async fn document(&mut self, result: BatchResult) -> Document {
        let read = match result {
            BatchResult {
                document: Some(document),
                ..
            } => return document,
            BatchResult { read, .. } => read,
        };
        let Some(read) = read else {
            return Document::default();
        };
        // What was written before this has given its memory back, or will as the caller reads on.
        self.written = Document::default();
        match read.document(&self.app).await {
            Err(problem) if problem.lacks_memory() && self.make_room() => {}
            Err(problem) => return document_of_problem(problem),
            Ok(document) => return document,
        }
        let again = read.document(&self.app).await;
        again.unwrap_or_else(document_of_problem)
    }

    /// Drops the results of later reads, which will be repeated. Returns whether there were any.
    fn make_room(&mut self) -> bool {
        let mut is_any = false;
        for result in &mut self.results {
            if result.read.is_some() && result.document.take().is_some() {
                is_any = true;
            }
        }
        is_any
    }
}
