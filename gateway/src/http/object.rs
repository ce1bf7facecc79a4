//! JSON objects, written member by member.
//!
//! What the gateway reports of a key is for the most part names, digits and words of its own, which
//! have nothing to escape: they are copied as they are. A serializer that knows nothing of them looks at
//! each of their bytes.

/// An object in the making. Members stand in the order in which they are written.
pub(super) struct Object<'a> {
    text: &'a mut Vec<u8>,
    has_members: bool,
}

impl<'a> Object<'a> {
    /// Begins an object at the end of `text`.
    pub(super) fn begin(text: &'a mut Vec<u8>) -> Self {
        text.push(b'{');
        Self {
            text,
            has_members: false,
        }
    }

    /// Ends the object.
    pub(super) fn end(self) {
        self.text.push(b'}');
    }

    /// A member that is text without anything to escape.
    pub(super) fn plain(&mut self, name: &'static str, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        debug_assert!(is_plain(text), "{name} has something to escape");
        self.name(name);
        self.text.push(b'"');
        self.text.extend_from_slice(text);
        self.text.push(b'"');
    }

    /// A member that is text.
    pub(super) fn string(&mut self, name: &'static str, text: &str) {
        self.name(name);
        self.text.push(b'"');
        escape(text.as_bytes(), self.text);
        self.text.push(b'"');
    }

    /// A member that is a number.
    pub(super) fn number(&mut self, name: &'static str, number: impl Into<u64>) {
        self.name(name);
        let number: u64 = number.into();
        serde_json::to_writer(&mut *self.text, &number).expect("a number is JSON");
    }

    /// A member that is true or false.
    pub(super) fn boolean(&mut self, name: &'static str, is_true: bool) {
        self.name(name);
        self.text.extend_from_slice(match is_true {
            true => b"true",
            false => b"false",
        });
    }

    /// A member that is null.
    pub(super) fn null(&mut self, name: &'static str) {
        self.name(name);
        self.text.extend_from_slice(b"null");
    }

    /// A member that is an object with the members that `write` writes.
    pub(super) fn object(&mut self, name: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        self.nested(write);
    }

    /// A member that is an array of objects, of each item one.
    pub(super) fn objects<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Object<'_>, T),
    ) {
        self.name(name);
        self.text.push(b'[');
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                self.text.push(b',');
            }
            self.nested(|object| write(object, item));
        }
        self.text.push(b']');
    }

    fn nested(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::begin(self.text);
        write(&mut object);
        object.end();
    }

    fn name(&mut self, name: &'static str) {
        debug_assert!(is_plain(name.as_bytes()), "a name has nothing to escape");
        let begin = match self.has_members {
            true => &b",\""[..],
            false => b"\"",
        };
        self.has_members = true;
        self.text.extend_from_slice(begin);
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }
}

/// How many bytes a byte of text becomes within a JSON string.
pub(super) fn escaped_bytes(byte: u8) -> u64 {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Whether text has nothing to escape. It is looked at as a whole, since compilers do that many bytes at
/// a time.
fn is_plain(text: &[u8]) -> bool {
    let to_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    !text.iter().fold(false, |any, byte| any | to_escape(*byte))
}

/// Writes text as the inside of a JSON string, as `serde_json` does.
pub(super) fn escape(text: &[u8], to: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if is_plain(text) {
        return to.extend_from_slice(text);
    }
    for plain in text.split_inclusive(|byte| escaped_bytes(*byte) > 1) {
        let (&last, before) = plain.split_last().expect("it has the byte that ends it");
        to.extend_from_slice(before);
        let short = match last {
            b'"' | b'\\' => last,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            12 => b'f',
            0..0x20 => {
                let [high, low] = [last >> 4, last & 15].map(|digit| HEX[usize::from(digit)]);
                to.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                continue;
            }
            _ => {
                to.push(last);
                continue;
            }
        };
        to.extend_from_slice(&[b'\\', short]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_what_serde_json_writes() {
        let texts = [
            "",
            "a",
            "é€😀",
            "\"",
            "a\\b",
            "\n\r\t\u{8}\u{c}",
            "\0\u{1f}\u{7f}",
        ];
        for text in texts {
            let mut written = Vec::new();
            let mut object = Object::begin(&mut written);
            object.string("text", text);
            object.plain("plain", "0af-");
            object.object("numbers", |object| {
                object.number("least", 0_u8);
                object.number("most", u64::MAX);
            });
            object.objects("none", [""; 0], |_, _| {});
            object.objects("two", ["b", text], |object, text| {
                object.string("one", text);
                object.null("other");
            });
            object.object("empty", |_| {});
            object.end();
            let expected = serde_json::json!({
                "text": text,
                "plain": "0af-",
                "numbers": { "least": 0, "most": u64::MAX },
                "none": [],
                "two": [{ "one": "b", "other": null }, { "one": text, "other": null }],
                "empty": {},
            });
            assert_eq!(String::from_utf8(written).unwrap(), expected.to_string());
        }
    }

    #[test]
    fn every_byte_that_has_to_be_escaped_is_noticed_wherever_it_stands() {
        for byte in 0..=0x7f {
            for place in [0, 1, 15, 16, 31, 63, 64, 99] {
                let mut text = [b'a'; 100];
                text[place] = byte;
                assert_eq!(
                    is_plain(&text),
                    escaped_bytes(byte) == 1,
                    "{byte} at {place}"
                );
            }
        }
    }
}
