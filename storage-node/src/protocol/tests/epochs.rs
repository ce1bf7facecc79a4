//! What clients state that they belong to, and who is served.

use dkvs_common::epoch::{Epoch, StatedEpoch};
use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse};

use super::v2::{SERVED, ask, put, service_of};
use crate::config::{Served, ServiceConfig};
use crate::store::RecordStore as _;

#[test]
fn a_server_serves_its_own_configuration_and_says_of_others_who_is_late() {
    let numbered = |number, hash| StatedEpoch::Numbered(Epoch { number, hash });
    let served = SERVED.epoch;
    let own_ring = Some(Refusal::WrongEpoch { epoch: 7 });
    for (takes_rings, stated, refusal) in [
        (false, numbered(5, 7), None),
        (
            false,
            numbered(5, 8),
            Some(Refusal::OtherConfiguration { served }),
        ),
        (false, numbered(4, 7), Some(Refusal::Stale { served })),
        (false, numbered(6, 7), Some(Refusal::Behind { served })),
        (false, StatedEpoch::Ring(7), own_ring),
        (false, StatedEpoch::None, own_ring),
        (true, numbered(5, 7), None),
        (
            true,
            numbered(5, 8),
            Some(Refusal::OtherConfiguration { served }),
        ),
        (true, StatedEpoch::Ring(7), None),
        (true, StatedEpoch::Ring(8), own_ring),
        (true, StatedEpoch::None, own_ring),
    ] {
        let config = ServiceConfig {
            served: Some(Served {
                takes_rings,
                ..SERVED
            }),
            ..ServiceConfig::new(1)
        };
        let service = service_of(usize::MAX, config);
        let sums = ReplicaCommand::GetLeafSums {
            scope: dkvs_common::model::LeafScope {
                asker: "127.0.0.1:4000".parse().unwrap(),
                replication: 3,
                depth: 1,
            },
            first: 0,
            leaves_per_sum: 1,
            sums_max: 1,
        };
        let commands = vec![put(1, "v"), sums, ReplicaCommand::Ping];
        let (replies, _) = ask(&service, stated, commands);
        let expected = match refusal {
            Some(refusal) => [refusal; 2].map(ReplicaResponse::Refused),
            None => [
                ReplicaResponse::Done,
                // It has no peers.
                ReplicaResponse::Refused(Refusal::Unsupported),
            ],
        };
        assert_eq!(replies[..2], expected, "{stated:?}");
        assert_eq!(replies[2], ReplicaResponse::Done, "anybody may ping");
        assert_eq!(service.store().len(), usize::from(refusal.is_none()));
    }
    // One that does not know its cluster serves whoever asks.
    let service = service_of(usize::MAX, ServiceConfig::new(1));
    for stated in [numbered(5, 7), StatedEpoch::Ring(7), StatedEpoch::None] {
        assert_eq!(
            ask(&service, stated, vec![put(1, "v")]).0,
            [ReplicaResponse::Done]
        );
    }
}
