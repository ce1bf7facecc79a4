//! Datagrams out of a socket: as many with one system call as there are, or one by one.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dkvs_common::wire::{BatchSize, split_joined, v1};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::protocol::Received;

/// One more than any datagram of the protocol has, so that a longer one shows; and what the
/// system joins of one sender's datagrams (GRO) is no longer, either.
const BUFFER_BYTES: usize = 64 << 10;
const _: () = assert!(BUFFER_BYTES > v1::DATAGRAM_BYTES_MAX);

/// A datagram that seems to have waited longer than this came before the clock was set.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Where datagrams arrive.
pub(super) struct Inbox {
    buffers: Vec<u8>,
    /// What the system says of each datagram.
    metas: [RecvMeta; BATCH_SIZE],
    batch: BatchSize,
    /// For several at a time, with their times of arrival.
    offload: Option<Arc<UdpSocketState>>,
}

impl Inbox {
    pub(super) fn new(offload: Option<Arc<UdpSocketState>>) -> Self {
        let buffers = if offload.is_some() { BATCH_SIZE } else { 1 };
        Self {
            buffers: vec![0; buffers * BUFFER_BYTES],
            metas: [RecvMeta::default(); BATCH_SIZE],
            batch: BatchSize::new(BATCH_SIZE),
            offload,
        }
    }

    /// Appends what one system call returns; an error if that is nothing.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        arrived: &mut Vec<Received>,
    ) -> io::Result<()> {
        match self.offload.clone() {
            Some(state) => self.receive_batch(socket, &state, arrived),
            None => {
                let (length, peer) = socket.try_recv_from(&mut self.buffers)?;
                arrived.push(Received {
                    datagram: Bytes::copy_from_slice(&self.buffers[..length]),
                    peer,
                    at: Instant::now(),
                    waited: Duration::ZERO,
                });
                Ok(())
            }
        }
    }

    fn receive_batch(
        &mut self,
        socket: &UdpSocket,
        state: &UdpSocketState,
        arrived: &mut Vec<Received>,
    ) -> io::Result<()> {
        let metas = &mut self.metas[..self.batch.get()];
        let count = socket.try_io(Interest::READABLE, || {
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let slices = &mut slices[..metas.len()];
            let buffers = self.buffers.chunks_exact_mut(BUFFER_BYTES);
            for (slice, buffer) in slices.iter_mut().zip(buffers) {
                *slice = IoSliceMut::new(buffer);
            }
            state.recv(socket.into(), slices, metas)
        })?;
        self.batch.received(count);
        let (at, clock) = (Instant::now(), SystemTime::now());
        let filled = self.buffers.chunks_exact(BUFFER_BYTES).zip(metas);
        for (buffer, meta) in filled.take(count) {
            // One copy of all that came joined, which the datagrams then share.
            let joined = Bytes::copy_from_slice(&buffer[..meta.len]);
            let waited = waited(meta.timestamp, clock);
            arrived.extend(split_joined(&joined, meta.stride).map(|datagram| Received {
                datagram,
                peer: meta.addr,
                at,
                waited,
            }));
        }
        Ok(())
    }
}

/// How long a datagram lay in the socket, by the wall clock; nothing if that makes no sense.
fn waited(arrival: Option<Duration>, clock: SystemTime) -> Duration {
    let since_1970 = clock.duration_since(UNIX_EPOCH).ok();
    arrival
        .and_then(|arrival| since_1970?.checked_sub(arrival))
        .filter(|waited| *waited <= WAIT_MAX)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_believed_only_if_it_makes_sense() {
        let second = Duration::from_secs(1);
        let clock = UNIX_EPOCH + 200_000 * second;
        assert_eq!(waited(Some(199_997 * second), clock), 3 * second);
        assert_eq!(waited(Some(200_001 * second), clock), Duration::ZERO);
        assert_eq!(waited(Some(second), clock), Duration::ZERO);
        assert_eq!(waited(None, clock), Duration::ZERO);
        assert_eq!(waited(Some(second), UNIX_EPOCH - second), Duration::ZERO);
    }
}
