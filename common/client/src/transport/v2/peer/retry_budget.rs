//! How many requests may be sent again.

/// Allows one request in ten to be sent again, so that a slow cluster is not finished off by its
/// clients.
#[derive(Debug, Clone)]
pub(super) struct RetryBudget {
    /// In tenths of a retransmission.
    tenths: u32,
}

/// What a budget holds at most, and at first: retransmissions.
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

    /// Whether one more may be sent again; if so, it is paid for.
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
