//! What a caller's token permits.
//!
//! Every [`Operation`](super::Operation) has an [`Access`]. The [`gate`](super::gate) demands a token
//! before a request is routed; `guard` checks what it permits once the route is known. Nothing here
//! knows the file of tokens ([`tokens`](crate::tokens) does).

use std::sync::Arc;

use axum::http::{Extensions, HeaderValue, StatusCode, header};
use dkvs_client::CallerId;
use dkvs_common::kv::Key;
use percent_encoding::percent_decode_str;

use super::operations::Access;
use super::problem::{Problem, ProblemType};
use crate::tokens::{Scope, Token};

const UNAUTHORIZED: ProblemType = ProblemType {
    status: StatusCode::UNAUTHORIZED,
    name: "unauthorized",
    title: "An access token is needed",
};

const FORBIDDEN: ProblemType = ProblemType {
    status: StatusCode::FORBIDDEN,
    name: "forbidden",
    title: "The access token is not good for this",
};

/// The sender of a request: what they may do, and to whom it is counted.
#[derive(Clone)]
pub struct Caller {
    id: CallerId,
    permission: Permission,
}

#[derive(Clone)]
enum Permission {
    /// The gateway has no tokens: everything.
    Anyone,
    Token(Arc<Token>),
    /// What needs no token.
    Open,
}

impl Caller {
    /// Any caller of a gateway without tokens, from this address.
    pub(super) fn anyone(address: CallerId) -> Self {
        let (id, permission) = (address, Permission::Anyone);
        Self { id, permission }
    }

    /// The caller with this token.
    pub(super) fn with(token: &Arc<Token>) -> Self {
        let id = CallerId::Token(token.id());
        let permission = Permission::Token(Arc::clone(token));
        Self { id, permission }
    }

    /// A caller without a token, from this address, where others have one.
    pub(super) fn without_token(address: CallerId) -> Self {
        let (id, permission) = (address, Permission::Open);
        Self { id, permission }
    }

    /// To whom what the caller takes is counted.
    pub(super) fn id(&self) -> CallerId {
        self.id
    }

    /// The caller of a request, whom the gate has named.
    pub(super) fn of(extensions: &Extensions) -> Result<&Self, Problem> {
        extensions.get().ok_or_else(no_token)
    }

    /// Checks that the caller's token has a scope and covers the key, if one is involved.
    pub(super) fn may(&self, scope: Scope, key: Option<&Key>) -> Result<(), Problem> {
        let token = self.token_with(scope)?;
        match (token, key) {
            (Some(token), Some(key)) if !token.covers(key.as_bytes().iter().copied()) => {
                Err(forbidden_key(token))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the caller may list all keys that begin with `prefix`: they have to lie within one
    /// of the token's prefixes.
    pub(super) fn may_list(&self, prefix: &[u8]) -> Result<(), Problem> {
        match self.token_with(Scope::Read)? {
            Some(token) if !token.covers(prefix.iter().copied()) => Err(forbidden_listing(token)),
            _ => Ok(()),
        }
    }

    /// Checks that there is any key that the caller may read or write.
    pub(super) fn may_read_or_write(&self) -> Result<(), Problem> {
        match &self.permission {
            Permission::Token(token) if !token.has(Scope::Read) && !token.has(Scope::Write) => {
                Err(forbidden_batch(token))
            }
            Permission::Anyone | Permission::Token(_) => Ok(()),
            Permission::Open => Err(no_token()),
        }
    }

    /// The caller's token, if there are tokens. Fails unless it has this scope.
    fn token_with(&self, scope: Scope) -> Result<Option<&Token>, Problem> {
        match &self.permission {
            Permission::Anyone => Ok(None),
            Permission::Token(token) if token.has(scope) => Ok(Some(token)),
            Permission::Token(token) => Err(forbidden_scope(token, scope)),
            Permission::Open => Err(no_token()),
        }
    }

    /// Checks that the caller may carry out an operation on the percent-encoded `key` of its path,
    /// which is empty where there is none.
    pub(super) fn may_use(&self, access: Access, key: &str) -> Result<(), Problem> {
        match access {
            Access::Open => Ok(()),
            Access::Token => match self.permission {
                Permission::Open => Err(no_token()),
                Permission::Anyone | Permission::Token(_) => Ok(()),
            },
            Access::Cluster(scope) => self.may(scope, None),
            Access::Key(scope) => match self.token_with(scope)? {
                // A broken escape stays as it is here; the handler refuses it.
                Some(token) if !token.covers(percent_decode_str(key)) => Err(forbidden_key(token)),
                _ => Ok(()),
            },
        }
    }
}

pub(super) fn no_token() -> Problem {
    unauthorized(
        "the request has no access token; send the header Authorization: Bearer <token>",
        "Bearer realm=\"dkvs\"",
    )
}

pub(super) fn wrong_token() -> Problem {
    unauthorized(
        "the access token is none that this gateway knows",
        "Bearer realm=\"dkvs\", error=\"invalid_token\"",
    )
}

fn unauthorized(detail: &'static str, challenge: &'static str) -> Problem {
    let challenge = HeaderValue::from_static(challenge);
    Problem::new(&UNAUTHORIZED, detail).with_header(header::WWW_AUTHENTICATE, challenge)
}

fn forbidden_scope(token: &Token, scope: Scope) -> Problem {
    let (token, scope) = (token.name(), scope.name());
    let detail =
        format!("the access token {token:?} does not have the scope {scope}, which this needs");
    Problem::new(&FORBIDDEN, detail)
}

fn forbidden_batch(token: &Token) -> Problem {
    let token = token.name();
    let detail =
        format!("the access token {token:?} has neither the scope read nor the scope write");
    Problem::new(&FORBIDDEN, detail)
}

fn forbidden_key(token: &Token) -> Problem {
    let token = token.name();
    let detail = format!("the key is outside of the prefixes of the access token {token:?}");
    Problem::new(&FORBIDDEN, detail)
}

fn forbidden_listing(token: &Token) -> Problem {
    let token = token.name();
    let detail =
        format!("not all keys with this prefix are within a prefix of the access token {token:?}");
    Problem::new(&FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Scopes, Tokens, mint};

    /// A caller whose token's line ends so.
    fn caller(end: &str) -> Caller {
        let minted = mint("name", Scopes::parse("read").unwrap(), &[]).unwrap();
        let line = minted.line.replace("read", end);
        let tokens = Tokens::parse("tokens", line.as_bytes()).unwrap();
        Caller::with(tokens.find(minted.token.as_bytes()).unwrap())
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes.to_vec()).unwrap()
    }

    #[test]
    fn without_tokens_anyone_may_do_anything() {
        let anyone = Caller::anyone(CallerId::AddressV4(1));
        for scope in Scope::ALL {
            assert!(anyone.may(scope, None).is_ok());
            assert!(anyone.may(scope, Some(&key(b"k"))).is_ok());
            assert!(anyone.may_use(Access::Key(scope), "k").is_ok());
        }
        assert!(anyone.may_list(b"").is_ok());
    }

    #[test]
    fn without_its_token_a_caller_may_only_do_what_is_open() {
        let caller = Caller::without_token(CallerId::AddressV4(1));
        for scope in Scope::ALL {
            assert!(caller.may(scope, None).is_err());
            assert!(caller.may_use(Access::Key(scope), "k").is_err());
            assert!(caller.may_use(Access::Cluster(scope), "").is_err());
        }
        assert!(caller.may_list(b"").is_err());
        assert!(caller.may_use(Access::Token, "").is_err());
        assert!(caller.may_use(Access::Open, "").is_ok());
    }

    #[test]
    fn what_a_caller_takes_is_counted_to_the_token_or_else_to_the_address() {
        let [one, again, other] = ["a", "a", "b"].map(|name| {
            let minted = mint(name, Scopes::parse("read").unwrap(), &[]).unwrap();
            let tokens = Tokens::parse("tokens", minted.line.as_bytes()).unwrap();
            Caller::with(tokens.find(minted.token.as_bytes()).unwrap()).id()
        });
        assert_eq!(one, again, "one name, with another token");
        assert_ne!(one, other);
        let address = CallerId::AddressV4(1);
        assert_eq!(Caller::anyone(address).id(), address);
        assert_eq!(Caller::without_token(address).id(), address);
    }

    #[test]
    fn no_scope_includes_another() {
        for scope in Scope::ALL {
            let caller = caller(scope.name());
            for asked in Scope::ALL {
                assert_eq!(caller.may(asked, None).is_ok(), asked == scope);
                let access = Access::Cluster(asked);
                assert_eq!(caller.may_use(access, "").is_ok(), asked == scope);
                let access = Access::Key(asked);
                assert_eq!(caller.may_use(access, "k").is_ok(), asked == scope);
            }
            assert_eq!(caller.may_list(b"").is_ok(), scope == Scope::Read);
            assert!(caller.may_use(Access::Token, "").is_ok());
        }
    }

    #[test]
    fn a_prefix_is_one_of_the_decoded_key() {
        let caller = caller("read,admin prefix=a%2Fb prefix=%ff");
        for (encoded, decoded, covered) in [
            ("a/b", &b"a/b"[..], true),
            ("a%2fb", b"a/b", true),
            ("%61/%62c", b"a/bc", true),
            ("%FF%00", b"\xff\0", true),
            ("a", b"a", false),
            ("a/", b"a/", false),
            ("A/b", b"A/b", false),
            ("a%252Fb", b"a%2Fb", false),
            ("x/../a/b", b"x/../a/b", false),
        ] {
            let access = Access::Key(Scope::Read);
            assert_eq!(
                caller.may_use(access, encoded).is_ok(),
                covered,
                "{encoded}"
            );
            let may = caller.may(Scope::Read, Some(&key(decoded)));
            assert_eq!(may.is_ok(), covered, "{encoded}");
            assert_eq!(caller.may_list(decoded).is_ok(), covered, "{encoded}");
        }
        assert!(caller.may_list(b"").is_err());
        assert!(caller.may_use(Access::Key(Scope::Read), "").is_err());
        assert!(caller.may(Scope::Admin, None).is_ok(), "it is about no key");
    }
}
