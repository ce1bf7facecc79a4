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

fn place(name: &str) -> ListPosition {
    ListPosition::after(Key::new(name.to_owned()).unwrap())
}

/// Whether what one gateway gives is what another one goes on from.
fn goes_on(of: &CursorKeys, at: &CursorKeys) -> bool {
    let (view, place) = (ours(), place("a/1"));
    let opened = open(at, &view, b"a/", &seal(of, &view, b"a/", &place));
    assert!(opened.as_ref().is_none_or(|opened| *opened == place));
    opened.is_some()
}

#[test]
fn every_place_comes_back() {
    let (keys, view) = (keyed(&[key(1, 1)]), ours());
    let without_key = ListPosition {
        from: Position([7; 20]),
        after: None,
    };
    let longest = "x".repeat(dkvs_common::kv::KEY_BYTES_MAX);
    let bytes = ListPosition::after(Key::new(&b"a\xff\0"[..]).unwrap());
    for place in [
        ListPosition::START,
        without_key,
        bytes,
        place("a"),
        place(&longest),
    ] {
        let cursor = seal(&keys, &view, b"", &place);
        assert_eq!(open(&keys, &view, b"", &cursor), Some(place));
    }
}

#[test]
fn a_cursor_is_good_for_the_very_prefix_of_its_list() {
    let (keys, view) = (keyed(&[key(1, 1)]), ours());
    let prefixes: [&[u8]; 6] = [b"", b"a", b"a/", b"b/", b"a/1", b"a/\0"];
    for sealed_for in prefixes {
        let cursor = seal(&keys, &view, sealed_for, &place("a/1"));
        for opened_for in prefixes {
            let opened = open(&keys, &view, opened_for, &cursor);
            assert_eq!(opened.is_some(), sealed_for == opened_for);
        }
    }
}

#[test]
fn no_bit_and_no_byte_of_a_cursor_can_be_another() {
    let (keys, view) = (keyed(&[key(1, 1)]), ours());
    let cursor = seal(&keys, &view, b"a/", &place("a/1"));
    let sealed = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
    let opens = |sealed: &[u8]| {
        let cursor = URL_SAFE_NO_PAD.encode(sealed);
        open(&keys, &view, b"a/", &cursor).is_some()
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
    let other = seal(&keys, &view, b"a/", &place("a/2"));
    let other = URL_SAFE_NO_PAD.decode(other).unwrap();
    assert_eq!(sealed.len(), other.len());
    for at in 1..sealed.len() {
        let spliced = [&sealed[..at], &other[at..]].concat();
        let is_one_of_them = spliced == sealed || spliced == other;
        assert_eq!(opens(&spliced), is_one_of_them, "{at}");
    }
    let unsealed = [&[1], &[0; 20][..], b"a/1"].concat();
    assert!(!opens(&unsealed), "as version 1 was");
    for text in ["", "a", "!", &format!("{cursor}=="), &format!(" {cursor}")] {
        assert_eq!(open(&keys, &view, b"a/", text), None, "{text}");
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
    for (of, at) in [(&open, &one), (&open, &keyed), (&one, &keyed)] {
        assert!(!goes_on(of, at) && !goes_on(at, of));
    }
    let cursor = seal(&open, &ours(), b"", &place("a"));
    let opens = |servers| super::open(&open, &view(servers), b"", &cursor).is_some();
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
        let cursor = seal(&keys, &view, b"", &place(&name));
        let sealed = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        let shows = |bytes: &[u8]| name.as_bytes().windows(8).any(|part| {
            bytes.windows(8).any(|window| window == part)
        });
        prop_assert!(!shows(&sealed) && !shows(cursor.as_bytes()));
        let position = Position::of_key_bytes(name.as_bytes());
        prop_assert!(!sealed.windows(8).any(|window| position.0.starts_with(window)));
        let padded = (PLACE_HEAD_BYTES + name.len()).next_multiple_of(PADDED_BYTES);
        prop_assert_eq!(sealed.len(), HEAD_BYTES + NONCE_LEN + padded + 16);
    }

    #[test]
    fn no_text_panics_or_opens(text in "\\PC{0,200}", bytes: Vec<u8>) {
        let (keys, view) = (keyed(&[key(1, 1)]), ours());
        prop_assert_eq!(open(&keys, &view, b"", &text), None);
        for head in [&[][..], &[VERSION], &[VERSION, 1], &[VERSION, 0]] {
            let cursor = URL_SAFE_NO_PAD.encode([head, &bytes].concat());
            prop_assert_eq!(open(&keys, &view, b"", &cursor), None);
        }
    }
}
