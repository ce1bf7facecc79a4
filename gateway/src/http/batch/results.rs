//! The results of a batch as parts of its reply, in the order of its operations.

use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use dkvs_client::CallerId;
use dkvs_common::kv::Key;

use crate::http::app::App;
use crate::http::document::Document;
use crate::http::json::json_text;
use crate::http::parameters::KeyParameters;
use crate::http::problem::Problem;
use crate::http::repeatable::{RepeatableRead, ReplyFrame, ReplyPart, body};
use crate::http::report::micros;

const BEGINNING: &[u8] = b"{\"results\":[";

/// A read of a batch.
pub(super) fn read(key: Key, parameters: KeyParameters) -> RepeatableRead {
    RepeatableRead {
        key,
        parameters,
        show: |found, key, short_max| found.json(key, short_max),
        frame: |_, found| match found {
            Ok(document) => of_status(200, "read", document),
            Err(problem) => of_problem(problem),
        },
    }
}

/// The result of a write.
pub(super) fn of_write(written: Result<Bytes, Problem>) -> ReplyPart {
    let document = match written {
        Ok(report) => {
            let report = report.slice(..report.trim_ascii_end().len());
            let mut document = Document::default();
            document.text(report);
            of_status(200, "write", document)
        }
        Err(problem) => of_problem(problem),
    };
    document.into()
}

/// The result of an operation that was not begun.
pub(super) fn of_problem(problem: Problem) -> Document {
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

/// The reply with these results.
pub(super) fn respond(
    app: &App,
    caller: CallerId,
    results: Vec<ReplyPart>,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    let frame = ReplyFrame {
        beginning: BEGINNING.to_vec().into(),
        between: ",",
        ending: Box::new(move || format!("],\"elapsed_us\":{}}}\n", micros(started.elapsed()))),
    };
    let body = body(app, caller, results, frame)?;
    Ok(json_text(HeaderMap::new(), body))
}
