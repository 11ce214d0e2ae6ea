//! M03: service keys are free; customer keys cost a monthly fee where the profile says so.

use crate::scene::{Side, assert_side, each_closed, open_gate};

#[test]
fn rule_m03_customer_keys_cost_what_the_profile_says_and_service_keys_nothing() {
    const FEE: u64 = 1_000_000;
    const NOT_OFFERED: Side = Err(("CustomerKeysNotOffered", "K08"));
    const EXHAUSTED: Side = Err(("BalanceExhausted", "M02"));
    // What becomes of the first and of the second key, and what is left of a balance for one fee.
    let table = [
        ("tencent-cbs", (NOT_OFFERED, NOT_OFFERED, FEE)),
        ("alibaba-ecs-classic", (NOT_OFFERED, NOT_OFFERED, FEE)),
        ("alibaba-ecs", (Ok(()), EXHAUSTED, 0)),
        ("huawei-evs", (Ok(()), Ok(()), FEE)),
        ("sealblk", (Ok(()), Ok(()), FEE)),
    ];
    each_closed(FEE, table, |kms, (first, second, left)| {
        open_gate(kms);
        let balance = || kms.ok(&["usage"])["balance"].as_u64().unwrap();
        assert_side(kms, &["key", "create", "one"], first);
        assert_side(kms, &["key", "create", "two"], second);
        assert_eq!((balance(), kms.metered("key-month")), (left, (FEE - left) / FEE));
        // The service's own key is free, and made whatever the balance is.
        kms.ok(&["account", "credit", "default", "100"]);
        let before = balance();
        let disk = kms.create("data", &[]);
        assert_eq!(
            kms.ok(&["key", "show", disk["key"].as_str().unwrap()])["origin"],
            "service"
        );
        assert!(before - balance() <= 100, "the price of a call at most");
    });
}
