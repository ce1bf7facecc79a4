//! Targets of requests that have a `#`. RFC 9112, section 3.2, has them answered 400 and not corrected; the
//! HTTP library drops that byte and what comes after it, and a request would be carried out for another key
//! than the one that it names. So the byte is made one that the library refuses.
//!
//! This follows what arrives from request to request, and knows of their fields only what says how long
//! their bodies are. What the library refuses ends the connection, so nothing has to be noticed here.

use memchr::memchr;

/// No target may have this byte, and the library refuses it.
const REFUSED: u8 = 0x01;

/// The longest line of which it matters what is in it, in bytes: a name, and as many digits as a length may
/// have.
const LINE_BYTES_MAX: usize = 64;

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

/// The place in the requests of a connection at which the next byte is.
#[derive(Default)]
pub(super) struct Targets {
    part: Part,
    line: Line,
    /// What the fields of the request have said so far.
    framing: Framing,
}

#[derive(Default, Clone, Copy)]
enum Part {
    /// The request line, or an empty line before it.
    #[default]
    Request,
    Fields,
    /// As many bytes of a body, or of one of its chunks.
    Content {
        left: u64,
        is_chunk: bool,
    },
    /// The line that says how long a chunk is.
    ChunkSize,
    /// The end of the line after a chunk.
    ChunkEnd,
    Trailers,
    /// It cannot be told: a length stands in a line that is too long to be looked at.
    Unknown,
}

#[derive(Default, Clone, Copy)]
enum Framing {
    #[default]
    NoBody,
    Length(u64),
    Chunked,
    Unknown,
}

impl Targets {
    /// Follows what has arrived, and has the library refuse what it would correct.
    pub(super) fn refuse_fragments(&mut self, mut arrived: &mut [u8]) {
        while !arrived.is_empty() {
            let taken = match self.part {
                Part::Unknown => return,
                Part::Content { left, is_chunk } => self.content(arrived.len(), left, is_chunk),
                Part::Request
                | Part::Fields
                | Part::ChunkSize
                | Part::ChunkEnd
                | Part::Trailers => self.line(arrived),
            };
            arrived = &mut arrived[taken..];
        }
    }

    /// Passes over content. Returns how many bytes of it have arrived.
    fn content(&mut self, arrived: usize, left: u64, is_chunk: bool) -> usize {
        let taken = usize::try_from(left).map_or(arrived, |left| left.min(arrived));
        let left = left - taken as u64;
        self.part = match (left, is_chunk) {
            (0, false) => Part::Request,
            (0, true) => Part::ChunkEnd,
            _ => Part::Content { left, is_chunk },
        };
        taken
    }

    /// Reads to the end of the line, or of what has arrived of it. Returns how many bytes that is.
    fn line(&mut self, arrived: &mut [u8]) -> usize {
        let end = memchr(b'\n', arrived);
        let taken = end.map_or(arrived.len(), |end| end + 1);
        let part = &mut arrived[..end.unwrap_or(taken)];
        match self.part {
            Part::Request => self.line.note_request(part),
            Part::ChunkSize => self.line.note_chunk_size(part),
            _ => self.line.note(part),
        }
        if end.is_some() {
            self.part = self.after_line();
            self.line.clear();
        }
        taken
    }

    /// The part that begins after a line.
    fn after_line(&mut self) -> Part {
        let is_empty = self.line.text().is_empty();
        match self.part {
            Part::Request if is_empty => Part::Request,
            Part::Request => {
                self.framing = Framing::NoBody;
                Part::Fields
            }
            Part::Fields if is_empty => match self.framing {
                Framing::NoBody | Framing::Length(0) => Part::Request,
                Framing::Length(left) => Part::Content {
                    left,
                    is_chunk: false,
                },
                Framing::Chunked => Part::ChunkSize,
                Framing::Unknown => Part::Unknown,
            },
            Part::Fields => {
                self.framing = self.framing.with(&self.line);
                Part::Fields
            }
            Part::ChunkEnd => Part::ChunkSize,
            Part::ChunkSize => match self.line.number {
                0 => Part::Trailers,
                left => Part::Content {
                    left,
                    is_chunk: true,
                },
            },
            Part::Trailers if is_empty => Part::Request,
            Part::Trailers | Part::Content { .. } | Part::Unknown => self.part,
        }
    }
}

impl Framing {
    /// What is known of the body after another field. A body that is chunked is so whatever else is said.
    fn with(self, field: &Line) -> Self {
        let text = field.text();
        let Some(colon) = text.iter().position(|byte| *byte == b':') else {
            return self;
        };
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(TRANSFER_ENCODING) {
            return Self::Chunked;
        }
        if !name.eq_ignore_ascii_case(CONTENT_LENGTH) || matches!(self, Self::Chunked) {
            return self;
        }
        let length = str::from_utf8(value).ok().filter(|_| !field.is_cut);
        match length.and_then(|length| length.parse().ok()) {
            Some(length) => Self::Length(length),
            None => Self::Unknown,
        }
    }
}

/// What is known of a line so far.
struct Line {
    /// The first bytes of it.
    bytes: [u8; LINE_BYTES_MAX],
    length: usize,
    /// Whether there were more.
    is_cut: bool,
    /// Whether it has had a blank, which is where the method ends.
    has_blank: bool,
    /// The hexadecimal number that it begins with.
    number: u64,
    is_number_over: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; LINE_BYTES_MAX],
            length: 0,
            is_cut: false,
            has_blank: false,
            number: 0,
            is_number_over: false,
        }
    }
}

impl Line {
    /// Another line begins.
    fn clear(&mut self) {
        // The bytes of the one before are overwritten as far as they are looked at.
        self.length = 0;
        self.is_cut = false;
        self.has_blank = false;
        self.number = 0;
        self.is_number_over = false;
    }

    /// What is known of it, without the end of the line.
    fn text(&self) -> &[u8] {
        let text = &self.bytes[..self.length];
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    fn note(&mut self, part: &[u8]) {
        let kept = part.len().min(LINE_BYTES_MAX - self.length);
        self.bytes[self.length..self.length + kept].copy_from_slice(&part[..kept]);
        self.length += kept;
        self.is_cut |= kept < part.len();
    }

    /// Has each `#` behind the method refused. A method may have one.
    fn note_request(&mut self, part: &mut [u8]) {
        self.note(part);
        let behind_method = match self.has_blank {
            true => Some(0),
            false => memchr(b' ', part),
        };
        let Some(begin) = behind_method else {
            return;
        };
        self.has_blank = true;
        let mut target = &mut part[begin..];
        while let Some(at) = memchr(b'#', target) {
            target[at] = REFUSED;
            target = &mut target[at..];
        }
    }

    fn note_chunk_size(&mut self, part: &[u8]) {
        for byte in part {
            match char::from(*byte).to_digit(16) {
                Some(digit) if !self.is_number_over => {
                    self.number = self.number.saturating_mul(16).saturating_add(digit.into());
                }
                _ => self.is_number_over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a `#` in the target of a last request is seen behind what comes before it, however that
    /// arrives.
    fn sees_a_target_after(before: &str) -> bool {
        let text = format!("{before}GET /kv/a#b?c#d HTTP/1.1\r\nhost: a#b\r\n\r\n");
        let seen = text.replace("a#b?c#d", "a\x01b?c\x01d");
        let results = [1, 2, 3, 7, 64, text.len()].map(|length| {
            let (mut targets, mut bytes) = (Targets::default(), text.clone().into_bytes());
            for piece in bytes.chunks_mut(length) {
                targets.refuse_fragments(piece);
            }
            assert!(
                bytes == text.as_bytes() || bytes == seen.as_bytes(),
                "{text}"
            );
            bytes == seen.as_bytes()
        });
        assert!(results.iter().all(|it| *it == results[0]), "{text}");
        results[0]
    }

    #[test]
    fn a_target_is_found_behind_every_request_that_is_well_formed() {
        let long = "x".repeat(300);
        for before in [
            "",
            "\r\n\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "G#T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nhost: b\n\n",
            "PUT /kv/k HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "PUT /kv/k HTTP/1.1\r\nContent-Length:\t17 \r\n\r\nGET /#2 HTTP/1.1\n",
            "PUT /kv/k HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n#\n",
            "PUT /kv/k HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "PUT /kv/k HTTP/1.1\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "PUT /kv/k HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n0\r\n\r\n",
            "PUT /kv/k HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n0A ;a=1#\r\nGET /# \r\n\r\n1\r\n#\r\n000;f\r\nx: #\r\n\r\n",
            &format!("GET /{long} HTTP/1.1\r\n{long}: {long}\r\n\r\n"),
            &format!(
                "PUT / HTTP/1.1\r\ntransfer-encoding: {long}, chunked\r\n\r\n1;{long}\r\nv\r\n{:0300}\r\n\r\n",
                0
            ),
        ] {
            assert!(sees_a_target_after(before), "{before:?}");
        }
    }

    #[test]
    fn bodies_and_fields_stay_as_they_are() {
        let long = " ".repeat(LINE_BYTES_MAX);
        for before in [
            "PUT /kv/k HTTP/1.1\r\ncontent-length: 99\r\n\r\n",
            "PUT /kv/k HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n99\r\n",
            "PUT /kv/k HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "PUT /kv/k HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n",
            "PUT /kv/k HTTP/1.1\r\nx: ",
            // It is not known where such bodies end.
            &format!("PUT /kv/k HTTP/1.1\r\ncontent-length:{long}0\r\n\r\n"),
            "PUT /kv/k HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        ] {
            assert!(!sees_a_target_after(before), "{before:?}");
        }
    }
}
