//! The published test vectors: ring positions and preference lists, computed apart from this
//! project.

use dkvs_common::cluster::Cluster;
use dkvs_common::kv::Key;
use dkvs_common::ring::{Position, Ring};
use serde::Deserialize;

#[derive(Deserialize)]
struct RingVector {
    name: String,
    servers_file: String,
    points: Option<Vec<Point>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Point {
    position: String,
    server: String,
}

#[derive(Deserialize)]
struct Case {
    key: String,
    sha1: String,
    servers: Vec<String>,
    positions: Vec<String>,
}

#[test]
fn ring_vectors_hold() {
    let vectors: Vec<RingVector> = serde_json::from_str(include_str!("vectors/ring.json")).unwrap();
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let name = &vector.name;
        let cluster = Cluster::parse(name, vector.servers_file.as_bytes()).unwrap();
        let ring = Ring::new(&cluster);
        let addr = |server: dkvs_common::cluster::ServerId| {
            cluster.servers()[server.index()].addr.to_string()
        };
        if let Some(points) = vector.points {
            let expected: Vec<_> = points.into_iter().map(|p| (p.position, p.server)).collect();
            let computed: Vec<_> = ring
                .points()
                .iter()
                .map(|point| (point.position.to_string(), addr(point.server)))
                .collect();
            assert_eq!(computed, expected, "{name}");
        }
        for case in vector.cases {
            let position = Position::of_key(&Key::new(case.key.clone()).unwrap());
            assert_eq!(position.to_string(), case.sha1, "{name} {}", case.key);
            for n in 1..=case.servers.len() {
                let (servers, positions): (Vec<_>, Vec<_>) = ring
                    .preference_list(position, n)
                    .iter()
                    .map(|point| (addr(point.server), point.position.to_string()))
                    .unzip();
                assert_eq!(servers, case.servers[..n], "{name} {}", case.key);
                assert_eq!(positions, case.positions[..n], "{name} {}", case.key);
            }
        }
    }
}
