//! One request to one server by DKVS/1, until its reply or until it is given up.

use std::io;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;

use super::super::Coordinator;
use super::pool::{Overdue, SocketPool};
use super::socket::LinkSocket;
use crate::core::{Heard, Token};

/// How long a socket is kept open for an overdue reply.
const HOLD: Duration = Duration::from_secs(60);

/// One exchange.
pub(super) struct Exchange {
    pool: SocketPool,
    coordinator: Coordinator,
    token: Token,
    server: ServerId,
    sent_at: Instant,
    deadline: Instant,
}

/// How the first attempt to send ended.
enum Sent {
    Now,
    /// The system's buffer is full: this datagram has to wait.
    Blocked(Vec<u8>),
    Failed(io::Error),
}

/// What may still arrive on a socket after its exchange.
enum SocketState {
    /// Nothing: it can be reused.
    Clean,
    /// A reply.
    ReplyOwed,
}

impl Exchange {
    /// Sends a request and handles its reply on a task of its own.
    pub(super) fn start(
        pool: SocketPool,
        coordinator: Coordinator,
        token: Token,
        socket: LinkSocket,
        datagram: &[u8],
        deadline: Instant,
    ) {
        let sent = match socket.try_send(datagram) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Sent::Blocked(datagram.to_vec())
            }
            Err(error) => Sent::Failed(error),
            Ok(()) => Sent::Now,
        };
        let exchange = Self {
            pool,
            coordinator,
            token,
            server: socket.server(),
            sent_at: Instant::now(),
            deadline,
        };
        tokio::spawn(exchange.run(socket, sent));
    }

    async fn run(self, socket: LinkSocket, sent: Sent) {
        let state = match Self::finish_sending(&socket, sent).await {
            Ok(()) => self.wait_for_reply(&socket).await,
            Err(error) => {
                let addr = self.pool.addr(self.server);
                tracing::debug!(%addr, %error, "a request could not be sent");
                self.report_unreachable();
                SocketState::Clean
            }
        };
        match state {
            SocketState::Clean => self.pool.pool(socket),
            SocketState::ReplyOwed => self.pool.burn(socket, self.sent_at),
        }
    }

    async fn finish_sending(socket: &LinkSocket, sent: Sent) -> io::Result<()> {
        match sent {
            Sent::Now => Ok(()),
            Sent::Blocked(datagram) => socket.send(&datagram).await,
            Sent::Failed(error) => Err(error),
        }
    }

    /// Waits for the reply until the deadline, and after it as long as the socket may be held.
    async fn wait_for_reply(&self, socket: &LinkSocket) -> SocketState {
        let reply = self.receive(socket);
        tokio::pin!(reply);
        if let Ok(state) = tokio::time::timeout_at(self.deadline.into(), &mut reply).await {
            return state;
        }
        let Overdue { number, given_up } = self.pool.enter_overdue();
        let hold = self.deadline + HOLD;
        let state = tokio::select! {
            state = &mut reply => state,
            _ = given_up => SocketState::ReplyOwed,
            () = tokio::time::sleep_until(hold.into()) => SocketState::ReplyOwed,
        };
        self.pool.leave_overdue(number);
        state
    }

    /// Receives until a valid reply or an error, and reports it to the request, if that is still
    /// in flight.
    async fn receive(&self, socket: &LinkSocket) -> SocketState {
        loop {
            let datagram = match socket.receive(|| self.pool.receive_now(socket)).await {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.report_unreachable();
                    return SocketState::Clean;
                }
                Err(error) => {
                    // The request may have arrived all the same, so nothing is reported.
                    let addr = self.pool.addr(self.server);
                    tracing::debug!(%addr, %error, "receiving failed");
                    return SocketState::ReplyOwed;
                }
            };
            let now = Instant::now();
            match Heard::from_v1(self.token.asked, datagram) {
                Ok(heard) => {
                    self.record_reply(now);
                    self.report(heard);
                    return SocketState::Clean;
                }
                Err(error) => {
                    // The valid reply may still follow.
                    let addr = self.pool.addr(self.server);
                    tracing::debug!(%addr, %error, "ignored");
                }
            }
        }
    }

    fn record_reply(&self, now: Instant) {
        let round_trip = now.saturating_duration_since(self.sent_at);
        let shared = self.pool.shared();
        shared.record_round_trip(self.server, round_trip);
        let state = self.coordinator.state();
        state.core.note_round_trip(self.server, round_trip);
        drop(state);
        let ports = &shared.burned_ports;
        ports.answered(self.server, self.sent_at, now);
    }

    /// The request did not arrive. An error can only be its own: each exchange has a socket for
    /// itself.
    fn report_unreachable(&self) {
        self.report(Heard::Unreachable { sent: false });
    }

    fn report(&self, heard: Heard) {
        self.coordinator.heard_by_v1(self.token, self.server, heard);
    }
}
