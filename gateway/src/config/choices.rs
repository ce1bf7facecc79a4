//! Settings that take one of a few values, and what these stand for.

use dkvs_client::Protocol;
use serde::Deserialize;

use crate::embedded::DurabilityChoice;

/// What a confirmed write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DurabilityName {
    Fsync,
    Buffered,
    Memory,
}

/// The protocol towards the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProtocolName {
    Auto,
    V1,
    V2,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnOff {
    On,
    Off,
}

impl From<DurabilityName> for DurabilityChoice {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Fsync => Self::Fsync,
            DurabilityName::Buffered => Self::Buffered,
            DurabilityName::Memory => Self::Memory,
        }
    }
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Auto => Self::Auto,
            ProtocolName::V1 => Self::V1,
            ProtocolName::V2 => Self::V2,
        }
    }
}
