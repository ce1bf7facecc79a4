use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::process::own_loopback;
use crate::waiting::PATIENCE;

const TO_SERVER: Way = Way {
    gateway: 0,
    server: 0,
    direction: Direction::ToServer,
};
const FROM_SERVER: Way = Way {
    direction: Direction::FromServer,
    ..TO_SERVER
};

/// A socket that waits for what is to come.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((own_loopback(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// One that talks to a front.
fn gateway_to(front: SocketAddr) -> UdpSocket {
    let gateway = socket();
    gateway.connect(front).unwrap();
    gateway
}

fn received(socket: &UdpSocket) -> (u8, SocketAddr) {
    let mut buffer = [0; 16];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(length, 1);
    (buffer[0], from)
}

/// Waits until the proxy has counted so many datagrams.
fn counted(proxy: &Proxy, expected: Counts) {
    let begun = Instant::now();
    while proxy.counts() != expected {
        let counts = proxy.counts();
        assert!(begun.elapsed() < PATIENCE, "{counts:?}, not {expected:?}");
        thread::yield_now();
    }
}

#[test]
fn what_is_sent_arrives_in_order_both_ways_when_it_is_clear() {
    let server = socket();
    let proxy = Proxy::before(&[server.local_addr().unwrap()], 1);
    let gateway = gateway_to(proxy.addrs()[0]);
    for number in 0..100 {
        gateway.send(&[number]).unwrap();
    }
    for number in 0..100 {
        let (arrived, from) = received(&server);
        assert_eq!(arrived, number);
        server.send_to(&[number], from).unwrap();
    }
    for number in 0..100 {
        assert_eq!(received(&gateway), (number, proxy.addrs()[0]));
    }
    let counts = Counts {
        passed: 200,
        ..Counts::default()
    };
    counted(&proxy, counts);
    assert_eq!(proxy.bytes(), 200, "each is a byte");
}

#[test]
fn a_way_that_is_cut_passes_nothing_and_the_way_back_does() {
    let server = socket();
    let proxy = Proxy::before(&[server.local_addr().unwrap()], 1);
    let gateway = gateway_to(proxy.addrs()[0]);
    gateway.send(&[1]).unwrap();
    let (_, from) = received(&server);
    proxy.set([(TO_SERVER, Conditions::CUT)]);
    gateway.send(&[2]).unwrap();
    server.send_to(&[3], from).unwrap();
    assert_eq!(received(&gateway).0, 3);
    let mut counts = Counts {
        passed: 2,
        dropped: 1,
        ..Counts::default()
    };
    counted(&proxy, counts);

    proxy.set([(FROM_SERVER, Conditions::CUT)]);
    gateway.send(&[4]).unwrap();
    assert_eq!(received(&server).0, 4, "what was cut off never comes");
    server.send_to(&[5], from).unwrap();
    counts.passed += 1;
    counts.dropped += 1;
    counted(&proxy, counts);

    proxy.clear();
    server.send_to(&[6], from).unwrap();
    assert_eq!(received(&gateway).0, 6);
}

#[test]
fn what_is_repeated_arrives_twice() {
    let server = socket();
    let proxy = Proxy::before(&[server.local_addr().unwrap()], 1);
    let gateway = gateway_to(proxy.addrs()[0]);
    let twice = Conditions {
        repeated_percent: 100,
        ..Conditions::CLEAR
    };
    proxy.set([(TO_SERVER, twice)]);
    for number in 0..20 {
        gateway.send(&[number]).unwrap();
    }
    for number in 0..20 {
        assert_eq!(received(&server).0, number);
        assert_eq!(received(&server).0, number);
    }
    let counts = Counts {
        passed: 40,
        duplicated: 20,
        ..Counts::default()
    };
    counted(&proxy, counts);
}

#[test]
fn what_is_delayed_is_overtaken_and_none_of_it_is_lost() {
    let server = socket();
    let proxy = Proxy::before(&[server.local_addr().unwrap()], 1);
    let gateway = gateway_to(proxy.addrs()[0]);
    let late = Conditions {
        delayed_percent: 100,
        ..Conditions::CLEAR
    };
    proxy.set([(TO_SERVER, late)]);
    for number in 0..200 {
        gateway.send(&[number]).unwrap();
    }
    let mut arrived: Vec<u8> = (0..200).map(|_| received(&server).0).collect();
    assert!(!arrived.is_sorted());
    arrived.sort_unstable();
    assert!(arrived.into_iter().eq(0..200));
    let counts = Counts {
        delayed: 200,
        ..Counts::default()
    };
    counted(&proxy, counts);
}

#[test]
fn conditions_are_those_of_one_gateway_and_one_server() {
    let servers = [socket(), socket()];
    let addrs = servers
        .each_ref()
        .map(|server| server.local_addr().unwrap());
    let proxy = Proxy::before(&addrs, 1);
    let gateways = [0, 1].map(|number| {
        proxy.expect(number);
        let sockets = [0, 1].map(|server| gateway_to(proxy.addrs()[server]));
        for (socket, server) in sockets.iter().zip(&servers) {
            assert!(!proxy.has_met_the_expected(&[0, 1]));
            socket.send(&[0]).unwrap();
            received(server);
        }
        assert!(proxy.has_met_the_expected(&[0, 1]));
        sockets
    });
    let way = Way {
        gateway: 1,
        server: 0,
        direction: Direction::ToServer,
    };
    proxy.set([(way, Conditions::CUT)]);
    for (number, gateway) in (1..).zip(&gateways) {
        for (socket, server) in gateway.iter().zip(1..) {
            socket.send(&[10 * number + server]).unwrap();
        }
    }
    assert_eq!(received(&servers[0]).0, 11);
    let mut others = [received(&servers[1]).0, received(&servers[1]).0];
    others.sort_unstable();
    assert_eq!(others, [12, 22]);
    let counts = Counts {
        passed: 7,
        dropped: 1,
        ..Counts::default()
    };
    counted(&proxy, counts);
}

#[test]
fn a_server_that_is_gone_and_one_that_comes_back_disturb_nothing() {
    let server = socket();
    let addr = server.local_addr().unwrap();
    let proxy = Proxy::before(&[addr], 1);
    let gateway = gateway_to(proxy.addrs()[0]);
    drop(server);
    // One at a time, so that it is by receiving that the proxy learns of the server's end.
    for sent in 1..=20 {
        gateway.send(&[0]).unwrap();
        let begun = Instant::now();
        let become_of = |counts: Counts| counts.passed + counts.dropped;
        while become_of(proxy.counts()) < sent {
            assert!(begun.elapsed() < PATIENCE, "{:?}", proxy.counts());
            thread::yield_now();
        }
    }
    let server = UdpSocket::bind(addr).unwrap();
    let wait = Some(Duration::from_millis(20));
    server.set_read_timeout(wait).unwrap();
    // The system may tell of the server's end once more, at the cost of a datagram.
    let arrived = (0..1_000).find_map(|_| {
        gateway.send(&[21]).unwrap();
        match server.recv(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            received => Some(received.unwrap()),
        }
    });
    assert_eq!(arrived, Some(1));
}

#[test]
fn a_gateway_that_is_replaced_is_met_again_though_it_has_a_port_of_the_one_before() {
    let server = socket();
    let proxy = Proxy::before(&[server.local_addr().unwrap()], 1);
    let gateway = gateway_to(proxy.addrs()[0]);
    gateway.send(&[1]).unwrap();
    let (_, before) = received(&server);
    assert!(proxy.has_met_the_expected(&[0]));

    proxy.expect(1);
    gateway.send(&[2]).unwrap();
    assert_eq!(received(&server), (2, before), "another is no successor");
    assert!(!proxy.has_met_the_expected(&[0]));

    proxy.expect(0);
    gateway.send(&[3]).unwrap();
    let (arrived, after) = received(&server);
    assert_eq!(arrived, 3);
    assert_ne!(after, before, "the server has to see another client");
    assert!(proxy.has_met_the_expected(&[0]));
    server.send_to(&[4], after).unwrap();
    assert_eq!(received(&gateway).0, 4);
}
