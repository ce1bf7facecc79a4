//! What every attack has in common: it runs alone, beside callers who behave, and is measured.

use dkvs_tests::load::Load;
use dkvs_tests::process::Gateway;
use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other attack of this program runs.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// Attacks a gateway while two callers who behave put and get values. Fails if any of their requests
/// does, or if the gateway's memory was ever above `bytes_max`, where the system tells.
pub async fn beside_callers<R>(
    gateway: &mut Gateway,
    bytes_max: u64,
    attack: impl AsyncFnOnce() -> R,
) -> R {
    beside_callers_with_values(gateway, 0, bytes_max, attack).await
}

/// The same, where their values have so many bytes at least.
pub async fn beside_callers_with_values<R>(
    gateway: &mut Gateway,
    value_bytes_min: usize,
    bytes_max: u64,
    attack: impl AsyncFnOnce() -> R,
) -> R {
    let urls = ["/kv/behaves/1", "/kv/behaves/2"].map(|path| gateway.url(path));
    let mut load = Load::with_values(urls.into_iter(), value_bytes_min);
    load.progress().await;
    let done = attack().await;
    // Also with what the attack leaves behind.
    load.progress().await;
    load.end().await;
    assert!(gateway.process.is_running());
    if let Some(peak) = gateway.process.peak_bytes() {
        assert!(
            peak <= bytes_max,
            "{peak} bytes were in use, and {bytes_max} is the limit"
        );
    }
    done
}
