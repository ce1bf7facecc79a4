//! What sending needs of the system beyond plain sockets. Linux alone has it; elsewhere nothing
//! is offloaded, and these are not called.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use crate::protocol::Transmit;

/// Whether the system can receive and send several datagrams at a time.
pub(super) const HAS_OFFLOAD: bool = cfg!(target_os = "linux");

/// Sends datagrams with one system call. Returns how many of the first left. An error is about
/// the very first.
#[cfg(target_os = "linux")]
pub(super) fn send_many(socket: &UdpSocket, waiting: &[Transmit]) -> io::Result<usize> {
    use rustix::net::{
        MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, addr::SocketAddrArg as _, sendmmsg,
    };
    use std::io::IoSlice;

    let addrs: Vec<SocketAddrAny> = waiting.iter().map(|next| next.peer.as_any()).collect();
    let slices: Vec<[IoSlice<'_>; 1]> = waiting
        .iter()
        .map(|next| [IoSlice::new(&next.datagram)])
        .collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = waiting
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let mut heads: Vec<MMsgHdr<'_>> = addrs
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((addr, slices), control)| MMsgHdr::new_with_addr(addr, slices, control))
        .collect();
    Ok(sendmmsg(socket, &mut heads, SendFlags::empty())?)
}

/// Sends a datagram that may travel in pieces, on a socket whose others may not. That is a
/// property of the socket, so it is changed for this one and changed back; nothing else is sent
/// meanwhile, since only this thread sends here, and it does not wait in between.
#[cfg(target_os = "linux")]
pub(super) fn send_in_fragments(
    socket: &UdpSocket,
    datagram: &[u8],
    peer: SocketAddr,
) -> io::Result<usize> {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover, set_ip_mtu_discover};

    let before = ip_mtu_discover(socket)?;
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?;
    let sent = socket2::SockRef::from(socket).send_to(datagram, &peer.into());
    set_ip_mtu_discover(socket, before)?;
    sent
}

#[cfg(not(target_os = "linux"))]
pub(super) fn send_many(_: &UdpSocket, _: &[Transmit]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn send_in_fragments(_: &UdpSocket, _: &[u8], _: SocketAddr) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use quinn_udp::UdpSocketState;
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover};
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn fragments_are_allowed_for_one_datagram_only() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (from, to) = (bind().await.unwrap(), bind().await.unwrap());
        UdpSocketState::new((&from).into()).unwrap();
        let forbidden = Ipv4PathMtuDiscovery::PROBE;
        assert_eq!(ip_mtu_discover(&from).unwrap(), forbidden);
        from.writable().await.unwrap();
        let datagram = vec![b'v'; 30_000];
        let peer = to.local_addr().unwrap();
        assert_eq!(send_in_fragments(&from, &datagram, peer).unwrap(), 30_000);
        assert_eq!(ip_mtu_discover(&from).unwrap(), forbidden);
        let mut buffer = vec![0; 65_536];
        let length = to.recv(&mut buffer).await.unwrap();
        assert!(buffer[..length] == datagram);
        // One that fails leaves it no other way.
        send_in_fragments(&from, &[0; 65_536], peer).unwrap_err();
        assert_eq!(ip_mtu_discover(&from).unwrap(), forbidden);
    }
}
