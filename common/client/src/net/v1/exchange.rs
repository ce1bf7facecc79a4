//! One command to one server by DKVS/1, until its reply or until it is given up.

use std::io;
use std::time::{Duration, Instant};

use dkvs_common::cluster::ServerId;
use dkvs_common::model::ReplicaResponse;

use super::pool::{Overdue, Pool};
use super::socket::PooledSocket;
use crate::core::Token;
use crate::transport::v1::{Exchange, decode};

/// How long a socket is kept open for an overdue reply.
const HOLD: Duration = Duration::from_secs(60);

/// Receives the results of exchanges.
pub(in crate::net) trait Recipient: Send + Sync + 'static {
    /// A server answered, this long after the command was sent.
    fn handle_round_trip(&self, server: ServerId, round_trip: Duration);
    /// A server answered a command.
    fn handle_response(&self, token: Token, from: ServerId, response: ReplicaResponse);
    /// A command did not reach its server.
    fn handle_unreachable(&self, token: Token, to: ServerId);
}

impl Pool {
    /// Sends a command and handles its reply, on a task of its own.
    pub(in crate::net) fn begin<R: Recipient>(
        &self,
        recipient: R,
        exchange: Exchange<Token>,
        socket: PooledSocket,
    ) {
        let sent = match socket.try_send(&exchange.datagram) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Blocked,
            Err(error) => Sent::Failed(error),
            Ok(()) => Sent::Now,
        };
        let task = ExchangeTask {
            pool: self.clone(),
            recipient,
            exchange,
            sent_at: Instant::now(),
        };
        tokio::spawn(task.run(socket, sent));
    }
}

/// One exchange, on a socket of its own.
struct ExchangeTask<R> {
    pool: Pool,
    recipient: R,
    exchange: Exchange<Token>,
    sent_at: Instant,
}

/// How the first attempt to send ended.
enum Sent {
    Now,
    /// The system's buffer is full: the datagram has to wait.
    Blocked,
    Failed(io::Error),
}

/// What may still arrive on a socket after its exchange.
enum SocketState {
    /// Nothing: it can be reused.
    Clean,
    /// A reply.
    ReplyOwed,
}

impl<R: Recipient> ExchangeTask<R> {
    async fn run(self, socket: PooledSocket, sent: Sent) {
        let state = match self.finish_sending(&socket, sent).await {
            Ok(()) => self.wait_for_reply(&socket).await,
            Err(error) => {
                let addr = socket.addr();
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

    async fn finish_sending(&self, socket: &PooledSocket, sent: Sent) -> io::Result<()> {
        match sent {
            Sent::Now => Ok(()),
            Sent::Blocked => socket.send(&self.exchange.datagram).await,
            Sent::Failed(error) => Err(error),
        }
    }

    /// Waits for the reply until the deadline, and after it as long as the socket may be held.
    async fn wait_for_reply(&self, socket: &PooledSocket) -> SocketState {
        let reply = self.receive(socket);
        tokio::pin!(reply);
        let deadline = self.exchange.deadline;
        if let Ok(state) = tokio::time::timeout_at(deadline.into(), &mut reply).await {
            return state;
        }
        let Overdue { number, given_up } = self.pool.enter_overdue();
        let hold = deadline + HOLD;
        let state = tokio::select! {
            state = &mut reply => state,
            _ = given_up => SocketState::ReplyOwed,
            () = tokio::time::sleep_until(hold.into()) => SocketState::ReplyOwed,
        };
        self.pool.leave_overdue(number);
        state
    }

    /// Receives until a valid reply or an error, and reports it.
    async fn receive(&self, socket: &PooledSocket) -> SocketState {
        loop {
            let datagram = match socket.receive(|| self.pool.receive_now(socket)).await {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.report_unreachable();
                    return SocketState::Clean;
                }
                Err(error) => {
                    // The command may have arrived all the same, so nothing is reported.
                    let addr = socket.addr();
                    tracing::debug!(%addr, %error, "receiving failed");
                    return SocketState::ReplyOwed;
                }
            };
            let now = Instant::now();
            match decode(self.exchange.expects, datagram) {
                Ok(response) => {
                    self.report(response, now);
                    return SocketState::Clean;
                }
                Err(error) => {
                    // The valid reply may still follow.
                    let addr = socket.addr();
                    tracing::debug!(%addr, %error, "ignored");
                }
            }
        }
    }

    fn report(&self, response: ReplicaResponse, now: Instant) {
        let Exchange { token, server, .. } = self.exchange;
        let round_trip = now.saturating_duration_since(self.sent_at);
        self.recipient.handle_round_trip(server, round_trip);
        self.pool.record_reply(server, self.sent_at, now);
        self.recipient.handle_response(token, server, response);
    }

    /// The command did not arrive. An error can only be its own: each exchange has a socket for
    /// itself.
    fn report_unreachable(&self) {
        let Exchange { token, server, .. } = self.exchange;
        self.recipient.handle_unreachable(token, server);
    }
}
