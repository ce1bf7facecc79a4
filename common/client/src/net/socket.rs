//! A UDP socket connected to one server: datagrams out and in, many to a system call.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4};

use bytes::Bytes;
use dkvs_common::wire::{BatchSize, split_joined};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What each socket asks the system to buffer in each direction, in bytes.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The most bytes that the system returns at once: one datagram, or several that it has joined.
const RECEIVE_BYTES_MAX: usize = 1 << 16;

/// The most bytes that the system joins or splits, less the headers that it adds.
const OFFLOAD_BYTES_MAX: usize = 65_000;

/// A socket connected to one server. It never lets the network fragment a datagram.
pub(super) struct ServerSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    server: SocketAddr,
    local: SocketAddrV4,
    receive_buffer_bytes: usize,
    offload: bool,
}

/// Room for the datagrams of one receive call, shared by a worker's sockets.
pub(super) struct ReceiveBuffer {
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    batch: BatchSize,
}

impl ReceiveBuffer {
    /// With `offload`, room for many datagrams, else for one.
    pub(super) fn new(offload: bool) -> Self {
        let count = if offload { BATCH_SIZE } else { 1 };
        Self {
            buffers: vec![vec![0; RECEIVE_BYTES_MAX]; count],
            metas: vec![RecvMeta::default(); count],
            batch: BatchSize::new(count),
        }
    }
}

impl ServerSocket {
    /// Connects to `server`. With `offload`, the system sends and receives many datagrams at once
    /// where it can.
    pub(super) fn connect(server: SocketAddrV4, offload: bool) -> io::Result<Self> {
        let server = SocketAddr::from(server);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.connect(&server.into())?;
        let receive_buffer_bytes = socket.recv_buffer_size()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let socket = UdpSocket::from_std(socket.into())?;
        let SocketAddr::V4(local) = socket.local_addr()? else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        Ok(Self {
            socket,
            state,
            server,
            local,
            receive_buffer_bytes,
            offload,
        })
    }

    /// This end's address.
    pub(super) fn local_addr(&self) -> SocketAddrV4 {
        self.local
    }

    /// How many bytes of datagrams the receive buffer holds for sure: a quarter of what the system
    /// grants, since it counts its own headers as well.
    pub(super) fn window_bytes_max(&self) -> usize {
        self.receive_buffer_bytes / 4
    }

    /// How many datagrams of `segment_bytes` each can be sent at once.
    pub(super) fn segments_max(&self, segment_bytes: usize) -> usize {
        if !self.offload {
            return 1;
        }
        let segments = OFFLOAD_BYTES_MAX / segment_bytes.max(1);
        self.state.max_gso_segments().min(segments).max(1)
    }

    /// Sends datagrams of `segment_bytes` each; the last may be shorter.
    pub(super) fn try_send(&self, datagrams: &[u8], segment_bytes: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.server,
            ecn: None,
            contents: datagrams,
            segment_size: (datagrams.len() > segment_bytes).then_some(segment_bytes),
            src_ip: None,
        };
        let send = || {
            let socket = UdpSockRef::from(&self.socket);
            self.state.try_send(socket, &transmit)
        };
        self.socket.try_io(Interest::WRITABLE, send)
    }

    /// Waits until something can be sent again.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Waits until a datagram or an error has arrived, and returns what `receive` makes of it, which
    /// is to call [`Self::receive_now`].
    pub(super) async fn receive<R>(&self, receive: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        // An ICMP error makes the socket "erroneous", not readable: ask for both.
        let interest = Interest::READABLE | Interest::ERROR;
        self.socket.async_io(interest, receive).await
    }

    /// Passes each datagram that has arrived to `take`. Fails if none has.
    pub(super) fn receive_now(
        &self,
        buffer: &mut ReceiveBuffer,
        mut take: impl FnMut(Bytes),
    ) -> io::Result<()> {
        let ReceiveBuffer {
            buffers,
            metas,
            batch,
        } = buffer;
        let metas = &mut metas[..batch.get()];
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (slice, buffer) in slices.iter_mut().zip(buffers.iter_mut()) {
            *slice = IoSliceMut::new(buffer);
        }
        let slices = &mut slices[..metas.len()];
        let received = self
            .state
            .recv(UdpSockRef::from(&self.socket), slices, metas)?;
        batch.received(received);
        for (meta, buffer) in metas[..received].iter().zip(buffers.iter()) {
            let joined = Bytes::copy_from_slice(&buffer[..meta.len]);
            split_joined(&joined, meta.stride).for_each(&mut take);
        }
        Ok(())
    }
}
