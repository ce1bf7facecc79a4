//! Rust source as tokens: enough to find paths and modules, without comments, texts and test code.

/// One token of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name or a keyword.
    Name(String),
    /// `::`
    PathSeparator,
    /// Any other character that is not white space.
    Mark(char),
    /// A text, a character, a lifetime or a number.
    Literal,
}

/// A token and the line that it begins in, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) token: Token,
    pub(crate) line: usize,
}

impl Located {
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.token {
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn is_name(&self, name: &str) -> bool {
        self.name() == Some(name)
    }

    pub(crate) fn is_mark(&self, mark: char) -> bool {
        self.token == Token::Mark(mark)
    }
}

/// The tokens of a source file, less comments and what is compiled for tests alone.
pub(crate) fn tokens(source: &str) -> Vec<Located> {
    without_tests(scan(source))
}

/// All tokens of a source file, less comments.
fn scan(source: &str) -> Vec<Located> {
    let text: Vec<char> = source.chars().collect();
    let at = |place: usize| text.get(place).copied().unwrap_or('\0');
    let (mut found, mut here, mut line) = (Vec::new(), 0, 1);
    while here < text.len() {
        let begin = here;
        let token = match at(here) {
            it if it.is_whitespace() => {
                here += 1;
                None
            }
            '/' if at(here + 1) == '/' => {
                while here < text.len() && at(here) != '\n' {
                    here += 1;
                }
                None
            }
            '/' if at(here + 1) == '*' => {
                let mut depth = 0;
                while here < text.len() {
                    match (at(here), at(here + 1)) {
                        ('/', '*') => (depth, here) = (depth + 1, here + 2),
                        ('*', '/') => (depth, here) = (depth - 1, here + 2),
                        _ => here += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
                None
            }
            '"' => {
                here = after_text(&text, here);
                Some(Token::Literal)
            }
            '\'' => {
                here = after_quote(&text, here);
                Some(Token::Literal)
            }
            it if it.is_ascii_digit() => {
                while at(here).is_alphanumeric() || at(here) == '_' {
                    here += 1;
                }
                Some(Token::Literal)
            }
            it if it.is_alphabetic() || it == '_' => {
                while at(here).is_alphanumeric() || at(here) == '_' {
                    here += 1;
                }
                let name: String = text[begin..here].iter().collect();
                match (name.as_str(), at(here)) {
                    ("b" | "c", '"') => {
                        here = after_text(&text, here);
                        Some(Token::Literal)
                    }
                    ("b", '\'') => {
                        here = after_quote(&text, here);
                        Some(Token::Literal)
                    }
                    ("r", '#') if at(here + 1).is_alphabetic() => {
                        here += 1;
                        None
                    }
                    ("r" | "br" | "cr", '"' | '#') => {
                        here = after_raw_text(&text, here);
                        Some(Token::Literal)
                    }
                    _ => Some(Token::Name(name)),
                }
            }
            ':' if at(here + 1) == ':' => {
                here += 2;
                Some(Token::PathSeparator)
            }
            mark => {
                here += 1;
                Some(Token::Mark(mark))
            }
        };
        found.extend(token.map(|token| Located { token, line }));
        line += text[begin..here].iter().filter(|it| **it == '\n').count();
    }
    found
}

/// The place after a text that begins with `"` at `here`.
fn after_text(text: &[char], mut here: usize) -> usize {
    here += 1;
    while here < text.len() && text[here] != '"' {
        here += if text[here] == '\\' { 2 } else { 1 };
    }
    (here + 1).min(text.len())
}

/// The place after a raw text, of which `here` is behind the `r`.
fn after_raw_text(text: &[char], mut here: usize) -> usize {
    let hashes = text[here..].iter().take_while(|it| **it == '#').count();
    here += hashes + 1;
    let is_end = |here: usize| {
        text[here] == '"'
            && text[here + 1..]
                .iter()
                .take(hashes)
                .filter(|it| **it == '#')
                .count()
                == hashes
    };
    while here < text.len() && !is_end(here) {
        here += 1;
    }
    (here + 1 + hashes).min(text.len())
}

/// The place after a character, or after a lifetime, that begins with `'` at `here`.
fn after_quote(text: &[char], here: usize) -> usize {
    let at = |place: usize| text.get(place).copied().unwrap_or('\0');
    if at(here + 1) == '\\' {
        let mut end = here + 3;
        while end < text.len() && text[end] != '\'' {
            end += 1;
        }
        return (end + 1).min(text.len());
    }
    if at(here + 2) == '\'' {
        return here + 3;
    }
    let mut end = here + 1;
    while at(end).is_alphanumeric() || at(end) == '_' {
        end += 1;
    }
    end
}

/// Leaves out each item, field or arm behind `#[cfg(test)]` or a `cfg` that holds in tests alone.
fn without_tests(all: Vec<Located>) -> Vec<Located> {
    let (mut left, mut here) = (Vec::with_capacity(all.len()), 0);
    while here < all.len() {
        let attribute = after_attribute(&all, here);
        match attribute {
            Some(end) if is_for_tests(&all[here..end]) => here = after_item(&all, end),
            Some(end) => {
                left.extend_from_slice(&all[here..end]);
                here = end;
            }
            None => {
                left.push(all[here].clone());
                here += 1;
            }
        }
    }
    left
}

/// The place after an attribute that begins at `here`.
fn after_attribute(all: &[Located], here: usize) -> Option<usize> {
    if !all[here].is_mark('#') {
        return None;
    }
    let mut end = here + 1;
    if all.get(end)?.is_mark('!') {
        return None;
    }
    if !all.get(end)?.is_mark('[') {
        return None;
    }
    let mut depth = 0;
    while let Some(it) = all.get(end) {
        end += 1;
        match it.token {
            Token::Mark('[') => depth += 1,
            Token::Mark(']') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(end);
        }
    }
    None
}

fn is_for_tests(attribute: &[Located]) -> bool {
    let names: Vec<&str> = attribute.iter().filter_map(Located::name).collect();
    names == ["test"]
        || names.first() == Some(&"cfg")
            && names.contains(&"test")
            && !names.iter().any(|it| ["not", "any"].contains(it))
}

/// The place after the item that begins at `here`, behind further attributes.
fn after_item(all: &[Located], mut here: usize) -> usize {
    while let Some(end) = all.get(here).and_then(|_| after_attribute(all, here)) {
        here = end;
    }
    let keywords = [
        "pub",
        "fn",
        "mod",
        "use",
        "impl",
        "struct",
        "enum",
        "const",
        "static",
        "type",
        "trait",
        "async",
        "macro_rules",
    ];
    let is_item = all
        .get(here)
        .and_then(Located::name)
        .is_some_and(|it| keywords.contains(&it));
    let mut depth = 0;
    while let Some(it) = all.get(here) {
        match it.token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') if depth == 0 => return here,
            Token::Mark(')' | ']') => depth -= 1,
            Token::Mark('}') => {
                depth -= 1;
                if depth == 0 {
                    return here + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return here + 1,
            Token::Mark(',') if depth == 0 && !is_item => return here + 1,
            _ => {}
        }
        here += 1;
    }
    here
}

#[test]
fn comments_texts_and_tests_are_no_tokens() {
    let source = r##"
        // crate::a
        use crate::b; /* crate::c /* crate::d */ */
        const E: &str = "crate::f \" ";
        const G: (&str, char, &'static [u8]) = (r#"crate::h"#, '\'', b"crate::i");
        #[cfg(test)]
        mod tests { use crate::j; fn k() {} }
        #[test]
        fn l() { crate::m() }
        #[cfg(not(test))]
        use crate::n;
    "##;
    let found = tokens(source);
    let after_crate: Vec<_> = found
        .windows(3)
        .filter(|it| it[0].is_name("crate"))
        .map(|it| (it[2].name().unwrap(), it[2].line))
        .collect();
    assert_eq!(after_crate, [("b", 3), ("n", 11)]);
}
