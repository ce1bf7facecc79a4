//! Which faults happen, and how often.

use super::chance::Span;

/// Something that goes wrong again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultPlan {
    pub kind: FaultKind,
    /// From the beginning of one to the beginning of the next.
    pub every: Span,
    pub lasts: Span,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Between a gateway and a server, one way or both, nothing arrives.
    LinkCut,
    /// The same between a server and all gateways.
    ServerCut,
    /// The same between a gateway and all servers.
    GatewayCut,
    /// The same between some gateways with some servers and the others.
    Split,
    /// A server's process ends, and is started again.
    ServerCrash,
    /// A server's process stands still.
    ServerPause,
    /// A server of another ring has a server's address.
    ForeignServer,
    /// A gateway's process ends with all it has under way, and is started again.
    GatewayCrash,
    /// A gateway's process stands still.
    GatewayPause,
    /// A gateway's wall clock is set.
    ClockJump,
    /// A server crashes, and its disk is lost.
    DiskLoss,
    /// A server crashes, and bits of its disk flip.
    DiskDamage,
    /// A server crashes, and a copy is made of its disk, or an older one is put in its place.
    SetBack,
}

impl FaultKind {
    pub const ALL: [Self; 13] = [
        Self::LinkCut,
        Self::ServerCut,
        Self::GatewayCut,
        Self::Split,
        Self::ServerCrash,
        Self::ServerPause,
        Self::ForeignServer,
        Self::GatewayCrash,
        Self::GatewayPause,
        Self::ClockJump,
        Self::DiskLoss,
        Self::DiskDamage,
        Self::SetBack,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinkCut => "links cut",
            Self::ServerCut => "servers cut off",
            Self::GatewayCut => "gateways cut off",
            Self::Split => "splits",
            Self::ServerCrash => "server crashes",
            Self::ServerPause => "server pauses",
            Self::ForeignServer => "foreign servers",
            Self::GatewayCrash => "gateway crashes",
            Self::GatewayPause => "gateway pauses",
            Self::ClockJump => "clock jumps",
            Self::DiskLoss => "disks lost",
            Self::DiskDamage => "disks damaged",
            Self::SetBack => "disks copied, or set back to a copy",
        }
    }
}
