//! The modules of this package that log something: what a log filter may name.

/// Their paths, in alphabetical order.
pub const LOG_MODULES: &[&str] = &[
    "dkvs_gateway::cli",
    "dkvs_gateway::embedded",
    "dkvs_gateway::embedded::directory",
    "dkvs_gateway::embedded::node",
    "dkvs_gateway::http::checks",
    "dkvs_gateway::http::serve",
    "dkvs_gateway::http::serve::connection",
    "dkvs_gateway::http::switch",
    "dkvs_gateway::open_files",
    "dkvs_gateway::otel",
    "dkvs_gateway::tls",
    "dkvs_gateway::tokens",
];
