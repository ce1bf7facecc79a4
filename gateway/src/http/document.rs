//! Replies that hold keys or values, with the memory that they take.
//!
//! A long value is not copied to become part of a JSON document: it is escaped piece by piece, as the
//! caller takes the reply. Its length is counted before, so the reply has a Content-Length all the
//! same. What a reply holds is taken from its caller's share of the memory until the last byte has
//! been handed to the system.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dkvs_client::{
    CallerId, Client, MemoryAccount, MemoryError, MemoryPermit, UNCOUNTED_BYTES_MAX,
};
use http_body::{Frame, SizeHint};

use super::object::{escape, escaped_bytes};

/// Pieces of a reply have about this many bytes.
const PIECE_BYTES: usize = 16 << 10;

/// The most bytes that a connection buffers before it waits for the system to take them.
pub(super) const CONNECTION_BUFFER_BYTES: usize = 128 << 10;

/// The most bytes of a reply that are buffered: another piece may come on top.
pub(super) const BUFFERED_BYTES_MAX: usize = CONNECTION_BUFFER_BYTES + PIECE_BYTES;

/// Marks a response that has no end: a caller who has closed its half of the connection has gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// A JSON document as a reply.
pub(super) enum Json {
    /// In one piece.
    Text(Vec<u8>),
    /// With a long value in it.
    Parts(Document),
}

/// A reply, in parts.
#[derive(Default)]
pub(super) struct Document {
    parts: VecDeque<Part>,
    /// For parts that have not taken their own memory.
    held: Vec<MemoryPermit>,
}

/// A part of a reply, and how it is written.
enum Part {
    /// As it is.
    Text(Bytes),
    /// As the inside of a JSON string; it is UTF-8.
    Escaped(Bytes),
    /// As the inside of a JSON string, in base64.
    Base64(Bytes),
}

impl Json {
    /// The body, as [`Document::into_body`] makes it.
    pub(super) fn into_body(self, client: &Client, caller: CallerId) -> Result<Body, MemoryError> {
        match self {
            Self::Text(text) if text.len() <= UNCOUNTED_BYTES_MAX => Ok(Body::from(text)),
            Self::Text(text) => Ok(Body::from(client.memory(caller).hold(text.into())?)),
            Self::Parts(document) => document.into_body(&client.memory(caller)),
        }
    }

    /// The document without the line end.
    pub(super) fn into_document(self) -> Document {
        match self {
            Self::Text(mut text) => {
                text.truncate(text.trim_ascii_end().len());
                text.into()
            }
            Self::Parts(document) => document,
        }
    }
}

impl Document {
    /// Adds text.
    pub(super) fn text(&mut self, text: impl Into<Bytes>) {
        self.push(Part::Text(text.into()));
    }

    /// Adds the inside of a JSON string: the bytes as text if they are UTF-8, else in base64. Returns
    /// whether they are.
    pub(super) fn string(&mut self, bytes: Bytes) -> bool {
        let is_text = std::str::from_utf8(&bytes).is_ok();
        self.push(match is_text {
            true => Part::Escaped(bytes),
            false => Part::Base64(bytes),
        });
        is_text
    }

    /// Adds another document.
    pub(super) fn append(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
        self.held.append(&mut other.held);
    }

    /// Holds memory for as long as there is any of it.
    pub(super) fn hold(&mut self, permit: MemoryPermit) {
        self.held.push(permit);
    }

    fn push(&mut self, part: Part) {
        if part.written_bytes() > 0 {
            self.parts.push_back(part);
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How long it is, in bytes.
    pub(super) fn written_bytes(&self) -> u64 {
        self.parts.iter().map(Part::written_bytes).sum()
    }

    /// How long its text is, in bytes, without keys and values.
    pub(super) fn beside_values_bytes(&self) -> usize {
        let texts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Escaped(_) | Part::Base64(_) => 0,
        });
        texts.sum()
    }

    /// The body, for which memory is taken: for all of a short one, else for what is buffered of it at
    /// a time. The parts have taken their own.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub(super) fn into_body(mut self, memory: &MemoryAccount) -> Result<Body, MemoryError> {
        let bytes = self.written_bytes();
        if self.held.is_empty()
            && let [Part::Text(text)] = self.parts.make_contiguous()
        {
            return Ok(Body::from(memory.hold(std::mem::take(text))?));
        }
        if bytes <= UNCOUNTED_BYTES_MAX as u64 {
            return Ok(Body::from(self.into_bytes()));
        }
        let parts_bytes = self.parts.len() * size_of::<Part>();
        let buffered = usize::try_from(bytes).unwrap_or(usize::MAX);
        let permit = memory.take(buffered.min(BUFFERED_BYTES_MAX) + parts_bytes)?;
        Ok(Body::new(StreamedBody {
            document: self,
            left_bytes: bytes,
            permit: Arc::new(permit),
        }))
    }

    /// The next piece, none at the end.
    pub(super) fn poll_piece(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES
            && let Some(part) = self.parts.front_mut()
        {
            part.write(&mut piece);
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// The whole of a short one.
    fn into_bytes(mut self) -> Bytes {
        let mut whole = Vec::new();
        while let Some(piece) = self.poll_piece() {
            whole.extend(piece);
        }
        whole.into()
    }
}

impl From<Vec<u8>> for Document {
    fn from(text: Vec<u8>) -> Self {
        let mut document = Self::default();
        document.text(text);
        document
    }
}

impl Part {
    fn written_bytes(&self) -> u64 {
        match self {
            Self::Text(bytes) => bytes.len() as u64,
            Self::Escaped(bytes) => bytes.iter().map(|byte| escaped_bytes(*byte)).sum(),
            Self::Base64(bytes) => bytes.len().div_ceil(3) as u64 * 4,
        }
    }

    fn is_empty(&self) -> bool {
        let (Self::Text(bytes) | Self::Escaped(bytes) | Self::Base64(bytes)) = self;
        bytes.is_empty()
    }

    /// Writes more of it, until there are about [`PIECE_BYTES`].
    fn write(&mut self, piece: &mut Vec<u8>) {
        // What a byte may become at most; and whole groups of base64.
        let room = PIECE_BYTES.saturating_sub(piece.len());
        match self {
            Self::Text(bytes) => {
                let taken = bytes.split_to(room.min(bytes.len()));
                piece.extend_from_slice(&taken);
            }
            Self::Escaped(bytes) => {
                let taken = bytes.split_to(room.div_ceil(6).min(bytes.len()));
                escape(&taken, piece);
            }
            Self::Base64(bytes) => {
                let taken = bytes.split_to((3 * room.div_ceil(4)).min(bytes.len()));
                piece.extend_from_slice(STANDARD.encode(&taken).as_bytes());
            }
        }
    }
}

/// A document as a body.
struct StreamedBody {
    document: Document,
    left_bytes: u64,
    /// For what is buffered: it ends with the last piece.
    permit: Arc<MemoryPermit>,
}

/// A piece for the connection, which holds the permit for what is buffered.
pub(super) fn buffered(bytes: Vec<u8>, permit: &Arc<MemoryPermit>) -> Bytes {
    let _permit = Arc::clone(permit);
    Bytes::from_owner(Piece { bytes, _permit })
}

/// A piece on its way to the system, and the permit for what is buffered.
struct Piece {
    bytes: Vec<u8>,
    _permit: Arc<MemoryPermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(bytes) = self.document.poll_piece() else {
            return Poll::Ready(None);
        };
        self.left_bytes -= bytes.len() as u64;
        let piece = buffered(bytes, &self.permit);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.document.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

/// Whether a value is so long that it becomes a part of its own.
pub(super) fn is_long(value_bytes: usize) -> bool {
    value_bytes > UNCOUNTED_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkvs_client::CallerId;
    use dkvs_client::core::MemoryBudget;
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    /// Every byte in many places, as text; and what is no text.
    fn strings() -> Vec<Vec<u8>> {
        let all: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        vec![
            Vec::new(),
            all.repeat(100).into_bytes(),
            vec![0; 100_000],
            vec![b'"'; 70_001],
            "é€😀".repeat(9_000).into_bytes(),
            vec![0xff; 50_000],
            vec![0xff; 50_001],
            vec![0xff; 50_002],
            (0..=255).cycle().take(40_000).collect(),
        ]
    }

    #[tokio::test]
    async fn a_document_in_pieces_is_what_it_would_be_in_one() {
        let budget = MemoryBudget::new(8 << 20);
        for string in strings() {
            let mut document = Document::default();
            document.text("{\"value\":\"");
            let is_text = document.string(string.clone().into());
            document.text("\"}");
            let expected = match std::str::from_utf8(&string) {
                Ok(text) => serde_json::json!({ "value": text }).to_string(),
                Err(_) => serde_json::json!({ "value": STANDARD.encode(&string) }).to_string(),
            };
            assert_eq!(is_text, std::str::from_utf8(&string).is_ok());
            assert_eq!(document.written_bytes(), expected.len() as u64);
            let body = document.into_body(&budget.account(CallerId::Token(1)));
            let mut body = body.unwrap();
            assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
            let mut found = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE_BYTES + 8, "{}", piece.len());
                found.extend_from_slice(&piece);
                let left = (expected.len() - found.len()) as u64;
                assert_eq!(body.size_hint().exact(), Some(left));
            }
            assert!(found == expected.as_bytes());
        }
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[tokio::test]
    async fn memory_for_what_is_buffered_is_held_until_the_last_piece_is_gone() {
        let budget = MemoryBudget::new(1 << 20);
        let account = budget.account(CallerId::Token(1));
        let mut document = Document::default();
        document.string(account.hold(vec![0; 100 << 10].into()).unwrap());
        let mut body = document.into_body(&account).unwrap();
        let (value, buffered) = (100 << 10, BUFFERED_BYTES_MAX + 1_024);
        assert_eq!(budget.taken_bytes(), value + buffered);
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        drop(body);
        assert_eq!(budget.taken_bytes(), buffered, "the value is gone");
        pieces.truncate(1);
        assert_eq!(budget.taken_bytes(), buffered);
        pieces.clear();
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn without_memory_there_is_no_body() {
        let budget = MemoryBudget::new(64 << 10);
        let account = budget.account(CallerId::Token(1));
        let mut document = Document::default();
        document.string(vec![0; 100 << 10].into());
        assert_eq!(document.into_body(&account).err(), Some(MemoryError::Share));
        let long = Document::from(vec![b'a'; UNCOUNTED_BYTES_MAX + 1]);
        assert_eq!(long.into_body(&account).err(), Some(MemoryError::Share));
        let short = Document::from(vec![b'a'; UNCOUNTED_BYTES_MAX]);
        assert!(short.into_body(&account).is_ok());
    }
}
