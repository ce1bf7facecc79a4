//! The turns of the long values that batches write.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dkvs_client::CallerId;

use crate::http::fair::FairSemaphore;

/// A value that is longer than this is written in turns, in bytes.
const WRITTEN_AT_ONCE_BYTES_MAX: usize = 4 << 10;

/// How many bytes of long values a worker writes at a time for all batches together, or one value.
const BATCH_WRITE_BYTES_MAX: usize = 1 << 20;

/// How long a turn may take. A write that waits for a silent server has sent what it sends long before.
const TURN_MAX: Duration = Duration::from_millis(250);

/// The turns of one worker.
pub(crate) fn batch_writes() -> FairSemaphore {
    FairSemaphore::new(BATCH_WRITE_BYTES_MAX)
}

/// Writes a value of so many bytes in its turn; a short one needs none. What takes longer than a turn goes on
/// beside the next.
pub(super) async fn in_turn<W: Future>(
    turns: &Arc<FairSemaphore>,
    caller: CallerId,
    bytes: usize,
    write: W,
) -> W::Output {
    if bytes <= WRITTEN_AT_ONCE_BYTES_MAX {
        return write.await;
    }
    let turn = turns.acquire(caller, bytes).await;
    let mut write = pin!(write);
    if let Ok(written) = tokio::time::timeout(TURN_MAX, write.as_mut()).await {
        return written;
    }
    drop(turn);
    write.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_waits_for_a_silent_server_does_not_keep_others_waiting() {
        let turns = Arc::new(batch_writes());
        let write = |caller, is_silent| {
            let write = async move {
                if is_silent {
                    std::future::pending::<()>().await;
                }
            };
            let caller = CallerId::Token(caller);
            in_turn(&turns, caller, BATCH_WRITE_BYTES_MAX, write)
        };
        tokio::select! {
            biased;
            () = write(1, true) => panic!("nobody answers it"),
            () = write(2, false) => {}
        }
    }
}
