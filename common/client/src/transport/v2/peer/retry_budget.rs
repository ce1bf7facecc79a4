//! How many requests may be sent again.

/// Allows one retransmission for every ten requests, so that retransmissions do not overload a slow
/// cluster.
#[derive(Debug, Clone)]
pub(super) struct RetryBudget {
    /// In tenths of a retransmission.
    tenths: u32,
}

/// The most retransmissions that a budget holds, and its content at the start.
const RETRIES_MAX: u32 = 20;

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            tenths: RETRIES_MAX * 10,
        }
    }
}

impl RetryBudget {
    /// A request was sent for the first time.
    pub(super) fn earn(&mut self) {
        self.tenths = (self.tenths + 1).min(RETRIES_MAX * 10);
    }

    /// Takes one retransmission from the budget. Returns whether it had one.
    pub(super) fn spend(&mut self) -> bool {
        let can_pay = self.tenths >= 10;
        if can_pay {
            self.tenths -= 10;
        }
        can_pay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_ten_may_be_sent_again() {
        let mut budget = RetryBudget::default();
        assert!((0..RETRIES_MAX).all(|_| budget.spend()));
        assert!(!budget.spend());
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend());
        assert!(!budget.spend());
    }
}
