//! Access tokens: the file that lists them, and the workers that follow its changes.
//!
//! ```text
//!   # one token a line: name, hash, scopes, and which keys if not all
//!   backup   sha256:c07d…  read
//!   shop     sha256:4be2…  read,write  prefix=cart%2F  prefix=stock%2F
//!   operator sha256:1a93…  read,write,admin
//! ```
//!
//! The file holds no token, only hashes. A token made by [`mint`] has 256 random bits, so its hash
//! needs neither salt nor stretching. No error shows the second field of a line: someone may have
//! put the token itself there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dkvs_common::hex::{self, Digits};
use dkvs_common::lines;
use dkvs_runtime::key_file;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::sync::watch;

/// Most tokens in a file: every request with a token is compared with each of them.
pub const TOKENS_MAX: usize = 1_024;

/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The beginning of every token that is made here, so that a search can find leaked ones.
const TOKEN_PREFIX: &str = "dkvs_";

/// The prefix of a hash.
const HASH_PREFIX: &[u8] = b"sha256:";

/// What a token permits. None includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reading and listing keys.
    Read,
    /// Writing and deleting keys.
    Write,
    /// Everything about the cluster rather than about keys.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Parses names with commas between them. None if a name is no scope, empty, or there twice.
    pub fn parse(names: &str) -> Option<Self> {
        names.split(',').try_fold(Self(0), |scopes, name| {
            let mut all = Scope::ALL.into_iter();
            let scope = all.find(|scope| scope.name() == name)?;
            (!scopes.has(scope)).then(|| Self(scopes.0 | scope.bit()))
        })
    }

    /// Whether the set has a scope.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

/// The SHA-256 of a token, as words, which are compared faster than bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash([u64; 4]);

impl Hash {
    fn of(token: &[u8]) -> Self {
        Self::from_bytes(&Sha256::digest(token).into())
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes
                .iter()
                .fold(0, |word, &byte| word << 8 | u64::from(byte));
        }
        Self(words)
    }

    fn parse(digits: &[u8]) -> Option<Self> {
        hex::parse(digits).map(|bytes| Self::from_bytes(&bytes))
    }
}

/// A token's line, without the token.
#[derive(Clone)]
pub struct Token {
    name: String,
    id: u64,
    hash: Hash,
    scopes: Scopes,
    /// Which keys it is for; all if empty.
    prefixes: Vec<Vec<u8>>,
}

impl Token {
    /// Its name, which may be logged.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number for its name: the same whenever the file is read.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it has a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }

    /// Whether it is for some keys only.
    pub fn is_limited(&self) -> bool {
        !self.prefixes.is_empty()
    }

    /// Whether it is for the key of these bytes, and so for all keys that begin with them.
    pub fn covers(&self, key: impl Iterator<Item = u8> + Clone) -> bool {
        let begins_with = |prefix: &Vec<u8>| {
            let mut key = key.clone();
            prefix.iter().all(|byte| key.next() == Some(*byte))
        };
        !self.is_limited() || self.prefixes.iter().any(begins_with)
    }
}

/// The tokens of a file, at least one.
#[derive(Clone)]
pub struct Tokens(Vec<Arc<Token>>);

/// Why a token file was refused: `<file>:<line>: <reason>`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}:{line}: {reason}")]
pub struct TokensError {
    /// The file's name as it was given.
    pub file: String,
    /// The offending line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub reason: Reason,
}

/// What is wrong with a token file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// Too few fields.
    #[error(
        "expected <name> sha256:<64 hexadecimal digits> <scopes> and perhaps prefix=<keys>, and \
         found {found} fields"
    )]
    FieldCount {
        /// How many there are.
        found: usize,
    },
    /// The first field is no name.
    #[error("the name is not 1 to 64 letters, digits, dots, hyphens and underscores")]
    Name,
    /// The second field is no hash.
    #[error(
        "the second field is not sha256: and 64 hexadecimal digits; `dkvs-gateway token` prints \
         the line of a new token"
    )]
    Hash,
    /// The third field is no list of scopes.
    #[error("the scopes are not a list of read, write and admin, each once, with commas between")]
    Scopes,
    /// A further field is no prefix.
    #[error("field {field} is not prefix= and the percent-encoded beginning of keys")]
    Prefix {
        /// Which field, from 1.
        field: usize,
    },
    /// Prefixes on a token that reads and writes no keys.
    #[error("prefix= limits read and write, and the token has neither")]
    PrefixOfNothing,
    /// The name stands on another line, too.
    #[error("the name is taken on line {first_line} already")]
    DuplicateName {
        /// Where it stands first.
        first_line: usize,
    },
    /// The hash stands on another line, too.
    #[error("the token is listed on line {first_line} already")]
    DuplicateToken {
        /// Where it stands first.
        first_line: usize,
    },
    /// There are too many lines.
    #[error("there are more than {TOKENS_MAX} tokens")]
    TooMany,
    /// There is no line.
    #[error(
        "no token is listed; each takes one line, <name> sha256:<64 hexadecimal digits> <scopes>"
    )]
    NoToken,
}

impl Tokens {
    /// Parses a token file. `name` is its name in errors.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, TokensError> {
        let refuse = |line, reason| TokensError {
            file: name.to_owned(),
            line,
            reason,
        };
        let mut tokens: Vec<(usize, Token)> = Vec::new();
        for (line, fields) in lines::entries(text) {
            let token = parse_token(&fields).map_err(|reason| refuse(line, reason))?;
            let first_line = |is_same: &dyn Fn(&Token) -> bool| {
                let mut tokens = tokens.iter();
                tokens.find_map(|(line, token)| is_same(token).then_some(*line))
            };
            if let Some(first_line) = first_line(&|other| other.name == token.name) {
                return Err(refuse(line, Reason::DuplicateName { first_line }));
            }
            if let Some(first_line) = first_line(&|other| other.hash == token.hash) {
                return Err(refuse(line, Reason::DuplicateToken { first_line }));
            }
            if tokens.len() == TOKENS_MAX {
                return Err(refuse(line, Reason::TooMany));
            }
            tokens.push((line, token));
        }
        if tokens.is_empty() {
            return Err(refuse(lines::last(text), Reason::NoToken));
        }
        let tokens = tokens.into_iter().map(|(_, token)| Arc::new(token));
        Ok(Self(tokens.collect()))
    }

    /// The token of these bytes, if it is listed. Compares every line in constant time, so that the time
    /// reveals nothing about the hashes.
    pub fn find(&self, token: &[u8]) -> Option<&Arc<Token>> {
        let hash = Hash::of(token);
        self.0.iter().fold(None, |found, token| {
            if bool::from(token.hash.0[..].ct_eq(&hash.0)) {
                Some(token)
            } else {
                found
            }
        })
    }

    /// A number of all hashes together, which only those know who have the file: the same whatever
    /// their order, and another one when any token comes or goes.
    pub fn digest(&self) -> [u8; 32] {
        let mut hashes: Vec<[u64; 4]> = self.0.iter().map(|token| token.hash.0).collect();
        hashes.sort_unstable();
        let mut digest = Sha256::new();
        for word in hashes.as_flattened() {
            digest.update(word.to_be_bytes());
        }
        digest.finalize().into()
    }

    /// The names, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|token| token.name())
    }
}

fn parse_token(fields: &[&[u8]]) -> Result<Token, Reason> {
    let [name, hash, scopes, prefixes @ ..] = fields else {
        let found = fields.len();
        return Err(Reason::FieldCount { found });
    };
    let name = std::str::from_utf8(name).map_err(|_| Reason::Name)?;
    if !is_name(name) {
        return Err(Reason::Name);
    }
    let hash = hash.strip_prefix(HASH_PREFIX).and_then(Hash::parse);
    let hash = hash.ok_or(Reason::Hash)?;
    let scopes = std::str::from_utf8(scopes).ok().and_then(Scopes::parse);
    let scopes = scopes.ok_or(Reason::Scopes)?;
    let prefixes: Vec<Vec<u8>> = (4..)
        .zip(prefixes)
        .map(|(field, text)| parse_prefix(text).ok_or(Reason::Prefix { field }))
        .collect::<Result<_, _>>()?;
    if !prefixes.is_empty() && !scopes.has(Scope::Read) && !scopes.has(Scope::Write) {
        return Err(Reason::PrefixOfNothing);
    }
    Ok(Token {
        name: name.to_owned(),
        id: Hash::of(name.as_bytes()).0[0],
        hash,
        scopes,
        prefixes,
    })
}

/// Whether this can be the name of a token.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn parse_prefix(field: &[u8]) -> Option<Vec<u8>> {
    let encoded = std::str::from_utf8(field).ok()?.strip_prefix("prefix=")?;
    let is_whole = encoded.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    (is_whole && !encoded.is_empty()).then(|| percent_decode_str(encoded).collect())
}

/// The characters that a prefix has unescaped.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'/')
    .remove(b':')
    .remove(b'_')
    .remove(b'~');

/// A new token and its line for the file.
pub struct Minted {
    /// What the caller sends.
    pub token: String,
    /// What goes into the file.
    pub line: String,
}

/// Makes a token of 256 random bits. `name` satisfies [`is_name`]; `prefixes` are the beginnings of
/// the keys that the token is for, not encoded.
///
/// # Errors
///
/// If the system has no random bytes.
pub fn mint(name: &str, scopes: Scopes, prefixes: &[String]) -> anyhow::Result<Minted> {
    use std::fmt::Write as _;

    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let digits = Digits::<64>::new(&Sha256::digest(&token));
    let mut line = format!("{name} sha256:{}", digits.as_str());
    let names = Scope::ALL.into_iter().filter(|scope| scopes.has(*scope));
    let names: Vec<_> = names.map(Scope::name).collect();
    write!(line, " {}", names.join(","))?;
    for prefix in prefixes {
        write!(line, " prefix={}", percent_encode(prefix.as_bytes(), PLAIN))?;
    }
    Ok(Minted { token, line })
}

/// Whether this has the form of a token that [`mint`] makes.
pub fn is_token(text: &OsStr) -> bool {
    let secret = text
        .to_str()
        .and_then(|text| text.strip_prefix(TOKEN_PREFIX));
    secret.is_some_and(|secret| {
        URL_SAFE_NO_PAD
            .decode(secret)
            .is_ok_and(|it| it.len() == 32)
    })
}

/// A token file in use, and what follows its changes.
pub struct TokenFile {
    path: PathBuf,
    tokens: watch::Sender<Tokens>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If it is wrong, or others than its owner may read or write it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            tokens: watch::Sender::new(load(path)?),
        })
    }

    /// The tokens, as they change.
    pub fn subscribe(&self) -> watch::Receiver<Tokens> {
        self.tokens.subscribe()
    }

    /// Reads the file again. If it is refused, nothing changes.
    pub fn reload(&self) {
        match load(&self.path) {
            Ok(tokens) => {
                let names: Vec<_> = tokens.names().map(str::to_owned).collect();
                self.tokens.send_replace(tokens);
                tracing::info!(tokens = ?names, "SIGHUP: the token file was read again");
            }
            Err(error) => {
                tracing::error!("SIGHUP: the tokens stay as they were: {error:#}");
            }
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Tokens> {
    // A token in place of the path must not get into a log.
    anyhow::ensure!(
        !is_token(path.as_os_str()),
        "`tokens` is a token, and has to be the path of a file of tokens; callers keep theirs in \
         DKVS_TOKEN"
    );
    let text = key_file::read_private(path, "who may do what is in it")?;
    Ok(Tokens::parse(&path.display().to_string(), &text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn line_of(token: &str, rest: &str) -> String {
        let digits: String = Sha256::digest(token)
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        format!("{token} sha256:{digits} {rest}\n")
    }

    fn covers(token: &Token, key: &[u8]) -> bool {
        token.covers(key.iter().copied())
    }

    fn refusal(text: &str) -> (usize, Reason) {
        let error = Tokens::parse("tokens", text.as_bytes()).err().unwrap();
        (error.line, error.reason)
    }

    #[test]
    fn each_token_is_found_with_its_scopes_and_no_other() {
        let text = [
            "# tokens\r\n\n".to_owned(),
            line_of("one", "read"),
            line_of("two", "\tadmin,write"),
            line_of("three", "write,read prefix=a/ prefix=%00%25b"),
        ];
        let tokens = Tokens::parse("tokens", text.concat().as_bytes()).unwrap();
        assert_eq!(tokens.names().collect::<Vec<_>>(), ["one", "two", "three"]);
        let of = |token: &str| {
            let token = tokens.find(token.as_bytes()).unwrap();
            Scope::ALL.map(|scope| token.has(scope))
        };
        assert_eq!(of("one"), [true, false, false]);
        assert_eq!(of("two"), [false, true, true]);
        assert_eq!(of("three"), [true, true, false]);
        for unknown in ["", "One", "one ", "on", "four"] {
            assert!(tokens.find(unknown.as_bytes()).is_none(), "{unknown}");
        }
        let one = tokens.find(b"one").unwrap();
        assert!(covers(one, b"") && covers(one, b"x") && !one.is_limited());
        let three = tokens.find(b"three").unwrap();
        for key in [&b"a/"[..], b"a/b", b"\0%b", b"\0%bc"] {
            assert!(covers(three, key), "{key:?}");
        }
        for key in [&b""[..], b"a", b"b", b"aa/", b"\0%", b"%00%25b"] {
            assert!(!covers(three, key), "{key:?}");
        }
    }

    #[test]
    fn whatever_is_not_understood_is_refused_with_its_line() {
        let long = "n".repeat(65);
        for (line, reason) in [
            ("a", Reason::FieldCount { found: 1 }),
            ("a b", Reason::FieldCount { found: 2 }),
            ("a/b HASH read", Reason::Name),
            (&format!("{long} HASH read"), Reason::Name),
            ("a dkvs_secret read", Reason::Hash),
            ("a sha256: read", Reason::Hash),
            ("a HASH0 read", Reason::Hash),
            ("a SHA256:00 read", Reason::Hash),
            ("a HASH reads", Reason::Scopes),
            ("a HASH Read", Reason::Scopes),
            ("a HASH read,", Reason::Scopes),
            ("a HASH read,read", Reason::Scopes),
            ("a HASH read, write", Reason::Scopes),
            ("a HASH read write", Reason::Prefix { field: 4 }),
            ("a HASH read prefix=", Reason::Prefix { field: 4 }),
            ("a HASH read prefix=a prefix=%", Reason::Prefix { field: 5 }),
            ("a HASH read prefix=%g0", Reason::Prefix { field: 4 }),
            ("a HASH read # a note", Reason::Prefix { field: 4 }),
            ("a HASH admin prefix=a", Reason::PrefixOfNothing),
        ] {
            let text = format!("# first\n{}\n", line.replace("HASH", ZEROS));
            assert_eq!(refusal(&text), (2, reason), "{line}");
        }
        assert_eq!(refusal("# none\n"), (2, Reason::NoToken));
        let [one, two] = [line_of("one", "read"), line_of("two", "read")];
        let again = Reason::DuplicateName { first_line: 1 };
        assert_eq!(
            refusal(&format!("{one}{}", two.replace("two", "one"))),
            (2, again)
        );
        let again = Reason::DuplicateToken { first_line: 2 };
        let renamed = two.replace("two", "three");
        assert_eq!(refusal(&format!("{one}{two}{renamed}")), (3, again));
        let many: String = (0..=TOKENS_MAX)
            .map(|n| line_of(&n.to_string(), "read"))
            .collect();
        assert_eq!(refusal(&many), (TOKENS_MAX + 1, Reason::TooMany));
    }

    #[test]
    fn no_error_shows_the_second_field() {
        let error = Tokens::parse("tokens", b"a dkvs_secret read")
            .err()
            .unwrap();
        let (shown, debug) = (error.to_string(), format!("{error:?}"));
        assert!(
            !shown.contains("secret") && !debug.contains("secret"),
            "{shown} {debug}"
        );
        assert!(shown.starts_with("tokens:1: "), "{shown}");
    }

    #[test]
    fn a_new_token_is_found_by_the_line_that_comes_with_it() {
        let scopes = Scopes::parse("write,read").unwrap();
        let prefixes = ["a b/".to_owned(), "100%".to_owned()];
        let minted = mint("shop", scopes, &prefixes).unwrap();
        assert!(
            minted
                .line
                .ends_with(" read,write prefix=a%20b/ prefix=100%25")
        );
        let tokens = Tokens::parse("tokens", minted.line.as_bytes()).unwrap();
        let token = tokens.find(minted.token.as_bytes()).unwrap();
        assert_eq!(token.name(), "shop");
        assert!(covers(token, b"a b/c") && covers(token, b"100%") && !covers(token, b"a"));
        assert_eq!(minted.token.len(), "dkvs_".len() + 43);
        assert_ne!(minted.token, mint("shop", scopes, &[]).unwrap().token);
    }
}
