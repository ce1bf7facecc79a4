//! How tests wait: until something has ended or holds, and never longer than [`PATIENCE`].

use std::time::{Duration, Instant};

/// Long enough for anything that a test waits for; reaching it is a failure, never a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits what has to come to an end.
pub async fn patiently<F: Future>(what: F) -> F::Output {
    let awaited = tokio::time::timeout(PATIENCE, what).await;
    awaited.unwrap_or_else(|_| panic!("not done within {PATIENCE:?}"))
}

/// Asks again and again until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !patiently(holds()).await {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
