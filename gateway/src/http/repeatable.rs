//! Replies that are made of the results of many reads, in their order.
//!
//! Each result holds the memory that it takes of the caller's share. A read for whose value there was no
//! memory is repeated when its turn in the reply has come: by then those before it have been
//! written, and have given theirs back. So a reply may be longer than the memory for it, and a
//! caller that reads slowly waits for its own results.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use dkvs_client::{CallerId, MemoryPermit, UNCOUNTED_BYTES_MAX};
use dkvs_common::kv::Key;
use futures_util::stream;

use super::app::App;
use super::client_error::no_memory_for_reply;
use super::document::{BUFFERED_BYTES_MAX, Document, Json, buffered};
use super::kv;
use super::parameters::KeyParameters;
use super::problem::Problem;

/// A read that may be carried out more than once.
pub(super) struct RepeatableRead {
    pub(super) key: Key,
    pub(super) parameters: KeyParameters,
    /// How what is found becomes a document.
    pub(super) show: fn(kv::Found<'_>, &Key, usize) -> Json,
    /// How a document or a problem becomes a part of the reply; a problem may become nothing.
    pub(super) frame: fn(&Key, Result<Document, Problem>) -> Document,
}

/// The result of one read, or something else that is a part of the reply.
pub(super) struct ReplyPart {
    /// What is written of it; none if there was no memory for it.
    document: Option<Document>,
    /// What it is the result of, if that can be repeated.
    read: Option<RepeatableRead>,
}

/// What is written around the parts of a reply.
pub(super) struct ReplyFrame {
    /// Before the first part.
    pub(super) beginning: Document,
    /// Between two parts.
    pub(super) between: &'static str,
    /// After the last part.
    pub(super) ending: Box<dyn FnOnce() -> String + Send>,
}

impl ReplyPart {
    /// Carries out a read.
    pub(super) async fn read(app: &App, read: RepeatableRead) -> Self {
        let document = match read.found(app).await {
            Err(problem) if problem.lacks_memory() => None,
            found => Some((read.frame)(&read.key, found)),
        };
        Self {
            document,
            read: Some(read),
        }
    }
}

impl From<Document> for ReplyPart {
    fn from(document: Document) -> Self {
        Self {
            document: Some(document),
            read: None,
        }
    }
}

impl RepeatableRead {
    /// What is found, with the memory that it takes.
    async fn found(&self, app: &App) -> Result<Document, Problem> {
        let Self {
            key, parameters, ..
        } = self;
        let show = |found: kv::Found<'_>| Ok((self.show)(found, key, UNCOUNTED_BYTES_MAX));
        let json = kv::read(app, key, parameters, show).await?;
        let memory = app.client.memory(parameters.options.caller);
        let bytes = match &json {
            Json::Text(text) => text.len(),
            // The value has its own.
            Json::Parts(document) => document.beside_values_bytes(),
        };
        let permit = memory.take(bytes).map_err(no_memory_for_reply)?;
        let mut document = json.into_document();
        document.hold(permit);
        Ok(document)
    }
}

/// The body of a reply with these parts, itself in parts if it is long. Reads without a result are
/// carried out on the way.
pub(super) fn body(
    app: &App,
    caller: CallerId,
    parts: Vec<ReplyPart>,
    frame: ReplyFrame,
) -> Result<Body, Problem> {
    let ReplyFrame {
        beginning,
        between,
        ending,
    } = frame;
    if parts.iter().all(|part| part.document.is_some()) {
        let mut whole = beginning;
        let documents = parts.into_iter().filter_map(|part| part.document);
        let documents = documents.filter(|document| !document.is_empty());
        for (number, document) in documents.enumerate() {
            if number > 0 {
                whole.text(between);
            }
            whole.append(document);
        }
        whole.text(ending());
        let body = Json::Parts(whole).into_body(&app.client, caller);
        return body.map_err(no_memory_for_reply);
    }
    let memory = app.client.memory(caller);
    let permit = memory.take(BUFFERED_BYTES_MAX);
    let rest = RestOfReply {
        app: app.clone(),
        permit: Arc::new(permit.map_err(no_memory_for_reply)?),
        parts: parts.into(),
        written: beginning,
        between,
        is_first: true,
        ending: Some(ending),
    };
    let pieces = stream::unfold(rest, async |mut rest| {
        let piece = rest.next_piece().await?;
        Some((Ok::<_, Infallible>(piece), rest))
    });
    Ok(Body::from_stream(Box::pin(pieces)))
}

/// What is still to be written.
struct RestOfReply {
    app: App,
    parts: VecDeque<ReplyPart>,
    /// What is being written now.
    written: Document,
    between: &'static str,
    is_first: bool,
    /// None once it is written.
    ending: Option<Box<dyn FnOnce() -> String + Send>>,
    /// For what is buffered.
    permit: Arc<MemoryPermit>,
}

impl RestOfReply {
    async fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.written.poll_piece() {
                return Some(buffered(piece, &self.permit));
            }
            let Some(part) = self.parts.pop_front() else {
                let ending = self.ending.take()?;
                self.written = ending().into_bytes().into();
                continue;
            };
            let document = self.document(part).await;
            if document.is_empty() {
                continue;
            }
            let mut next = Document::default();
            if !std::mem::take(&mut self.is_first) {
                next.text(self.between);
            }
            next.append(document);
            self.written = next;
        }
    }

    async fn document(&mut self, part: ReplyPart) -> Document {
        let read = match part {
            ReplyPart {
                document: Some(document),
                ..
            } => return document,
            ReplyPart { read, .. } => read,
        };
        let Some(read) = read else {
            return Document::default();
        };
        // What was written before this has given its memory back, or will as the caller reads on.
        self.written = Document::default();
        let mut found = read.found(&self.app).await;
        if found.as_ref().is_err_and(Problem::lacks_memory) && self.make_room() {
            found = read.found(&self.app).await;
        }
        (read.frame)(&read.key, found)
    }

    /// Drops the results of later reads, which will be repeated. Returns whether there were any.
    fn make_room(&mut self) -> bool {
        let mut is_any = false;
        for part in &mut self.parts {
            if part.read.is_some() && part.document.take().is_some() {
                is_any = true;
            }
        }
        is_any
    }
}
