//! What a cursor opens for, and that nothing else opens.

use super::*;
use crate::tokens::Tokens;
use dkvs_common::cluster::Cluster;
use dkvs_common::wire::v2::keys::Keys;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

fn view(servers: &str) -> ClusterView {
    ClusterView::first(Cluster::parse("servers", servers.as_bytes()).unwrap())
}

fn ours() -> ClusterView {
    view("10.0.0.1 4000 1\n10.0.0.2 4000 1\n")
}

/// A line of a key file.
fn key(id: u8, seed: u8) -> String {
    let digits = (0..32).map(|at| format!("{:02x}", at * 5 + seed));
    format!("{id} {}\n", digits.collect::<String>())
}

fn keyed(lines: &[String]) -> CursorKeys {
    let keys = Keys::parse("keys", lines.concat().as_bytes()).unwrap();
    CursorKeys::new(Some(watch::channel(keys).1), None)
}

/// A gateway without keys, and with these tokens if there are any.
fn unkeyed(tokens: &[&str]) -> CursorKeys {
    let line = |token: &&str| {
        let hash: String = Sha256::digest(token)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{token} sha256:{hash} read\n")
    };
    let text: String = tokens.iter().map(line).collect();
    let tokens = Tokens::parse("tokens", text.as_bytes()).ok();
    CursorKeys::new(None, tokens.map(|tokens| watch::channel(tokens).1))
}

fn place(name: &str) -> KeyPosition {
    KeyPosition::After(name.to_owned().into())
}

/// All keys with a prefix, up.
fn of(prefix: &'static [u8]) -> Listed {
    Listed {
        prefix: Bytes::from_static(prefix),
        start: None,
        delimiter: Bytes::new(),
        direction: Direction::Ascending,
    }
}

/// Whether what one gateway gives is what another one goes on from.
fn goes_on(by: &CursorKeys, at: &CursorKeys) -> bool {
    let (view, place, list) = (ours(), place("a/1"), of(b"a/"));
    let opened = open(at, &view, &list, &seal(by, &view, &list, &place));
    assert!(opened.as_ref().is_ok_and(|opened| *opened == place) || opened == NONE);
    opened.is_ok()
}

const NONE: Result<KeyPosition, CursorError> = Err(CursorError::Unknown);

#[test]
fn every_place_comes_back() {
    let (keys, view) = (keyed(&[key(1, 1)]), ours());
    let longest = "x".repeat(dkvs_common::kv::KEY_BYTES_MAX);
    for place in [
        KeyPosition::START,
        KeyPosition::End,
        KeyPosition::Before(Bytes::from_static(b"a\xff\0")),
        place("a"),
        place(&longest),
    ] {
        let cursor = seal(&keys, &view, &of(b""), &place);
        assert_eq!(open(&keys, &view, &of(b""), &cursor), Ok(place));
    }
}

#[test]
fn a_cursor_is_good_for_lists_of_the_very_same_keys_in_the_same_order() {
    let (keys, view) = (keyed(&[key(1, 1)]), ours());
    let prefixes = [&b""[..], b"a", b"a/", b"b/", b"a/1", b"a/\0"];
    let mut lists: Vec<Listed> = prefixes.into_iter().map(of).collect();
    for start in [&b""[..], b"a", b"a/"] {
        let start = Some(Bytes::from_static(start));
        lists.push(Listed { start, ..of(b"") });
    }
    for delimiter in [&b"a"[..], b"/", b"//"] {
        let delimiter = Bytes::from_static(delimiter);
        lists.push(Listed {
            delimiter,
            ..of(b"")
        });
    }
    lists.push(Listed {
        direction: Direction::Descending,
        ..of(b"")
    });
    for (number, sealed_for) in lists.iter().enumerate() {
        let cursor = seal(&keys, &view, sealed_for, &place("a/1"));
        for (other, opened_for) in lists.iter().enumerate() {
            let opened = open(&keys, &view, opened_for, &cursor);
            assert_eq!(opened.is_ok(), number == other);
        }
    }
}

#[test]
fn no_bit_and_no_byte_of_a_cursor_can_be_another() {
    let (keys, view) = (keyed(&[key(1, 1)]), ours());
    let cursor = seal(&keys, &view, &of(b"a/"), &place("a/1"));
    let sealed = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
    let opens = |sealed: &[u8]| {
        let cursor = URL_SAFE_NO_PAD.encode(sealed);
        open(&keys, &view, &of(b"a/"), &cursor).is_ok()
    };
    assert!(opens(&sealed));
    for bit in 0..8 * sealed.len() {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&flipped), "{bit}");
    }
    for length in 0..sealed.len() {
        assert!(!opens(&sealed[..length]), "{length}");
    }
    assert!(!opens(&[&sealed[..], &[0]].concat()));
    // Of two cursors no third is made.
    let other = seal(&keys, &view, &of(b"a/"), &place("a/2"));
    let other = URL_SAFE_NO_PAD.decode(other).unwrap();
    assert_eq!(sealed.len(), other.len());
    for at in 1..sealed.len() {
        let spliced = [&sealed[..at], &other[at..]].concat();
        let is_one_of_them = spliced == sealed || spliced == other;
        assert_eq!(opens(&spliced), is_one_of_them, "{at}");
    }
    for version in [1, 2] {
        let old = [&[version], &[0; 60][..]].concat();
        let old = URL_SAFE_NO_PAD.encode(old);
        let refused = Err(CursorError::OfOtherOrder);
        assert_eq!(open(&keys, &view, &of(b"a/"), &old), refused);
    }
    for text in ["", "a", "!", &format!("{cursor}=="), &format!(" {cursor}")] {
        assert_eq!(open(&keys, &view, &of(b"a/"), text), NONE, "{text}");
    }
}

#[test]
fn gateways_with_a_key_in_common_go_on_from_each_others_cursors() {
    let (old, new, other) = (key(1, 1), key(2, 2), key(1, 3));
    let before = keyed(std::slice::from_ref(&old));
    let adds = keyed(&[old.clone(), new.clone()]);
    let rotated = keyed(&[new.clone(), old]);
    let after = keyed(&[new]);
    // In a rotation, gateways have the file of a step or that of the next one.
    for (one, next) in [(&before, &adds), (&adds, &rotated), (&rotated, &after)] {
        assert!(goes_on(one, one) && goes_on(one, next) && goes_on(next, one));
    }
    assert!(!goes_on(&before, &after) && !goes_on(&after, &before));
    assert!(!goes_on(&before, &keyed(&[other])), "another cluster");
}

#[test]
fn without_a_key_file_gateways_have_their_tokens_in_common_and_else_their_servers() {
    let (one, other) = (unkeyed(&["a", "b"]), unkeyed(&["b", "a"]));
    assert!(goes_on(&one, &other), "in any order");
    assert!(!goes_on(&one, &unkeyed(&["a"])) && !goes_on(&one, &unkeyed(&["a", "b", "c"])));
    let (open, keyed) = (unkeyed(&[]), keyed(&[key(1, 1)]));
    assert!(goes_on(&open, &unkeyed(&[])));
    for (by, at) in [(&open, &one), (&open, &keyed), (&one, &keyed)] {
        assert!(!goes_on(by, at) && !goes_on(at, by));
    }
    let cursor = seal(&open, &ours(), &of(b""), &place("a"));
    let opens = |servers| super::open(&open, &view(servers), &of(b""), &cursor).is_ok();
    assert!(opens("10.0.0.2 4000 1\n10.0.0.1 4000 1\n"));
    assert!(
        !opens("10.0.0.1 4000 1\n10.0.0.3 4000 1\n"),
        "another cluster"
    );
}

proptest! {
    /// The same length for keys of about the same length, and nothing of the key in it.
    #[test]
    fn a_cursor_shows_nothing_of_its_key(name in "[a-z]{8,200}") {
        let (keys, view) = (keyed(&[key(1, 1)]), ours());
        let cursor = seal(&keys, &view, &of(b""), &place(&name));
        let sealed = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        let shows = |bytes: &[u8]| name.as_bytes().windows(8).any(|part| {
            bytes.windows(8).any(|window| window == part)
        });
        prop_assert!(!shows(&sealed) && !shows(cursor.as_bytes()));
        let padded = (PLACE_HEAD_BYTES + name.len()).next_multiple_of(PADDED_BYTES);
        prop_assert_eq!(sealed.len(), HEAD_BYTES + NONCE_LEN + padded + 16);
    }

    #[test]
    fn no_text_panics_or_opens(text in "\\PC{0,200}", bytes: Vec<u8>) {
        let (keys, view) = (keyed(&[key(1, 1)]), ours());
        prop_assert!(open(&keys, &view, &of(b""), &text).is_err());
        for head in [&[][..], &[VERSION], &[VERSION, 1], &[VERSION, 0]] {
            let cursor = URL_SAFE_NO_PAD.encode([head, &bytes].concat());
            prop_assert!(open(&keys, &view, &of(b""), &cursor).is_err());
        }
    }
}
