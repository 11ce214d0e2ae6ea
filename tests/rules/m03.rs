//! M03: service keys are free; customer keys cost a monthly fee where the profile says so.

use sealblk_e2e::Kms;
use sealblk_e2e::catalogue::Catalogue;

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

#[test]
fn rule_m03_what_could_not_be_paid_is_owed_and_is_collected_when_there_is_credit() {
    const FEE: u64 = 1_000_000;
    let mut kms = Kms::of_profile("alibaba-ecs", FEE);
    open_gate(&kms);
    kms.ok(&["key", "create", "mine"]);
    kms.stop();
    Catalogue::open(&kms.state())
        .execute("UPDATE keys SET fee_month = strftime('%Y-%m', 'now', 'start of month', '-3 months')");
    kms.serve();
    let months = |kms: &Kms| kms.metered("key-month");
    assert_eq!(months(&kms), 1, "the one that was paid when the key was made");
    let create = ["disk", "create", "data", "--size", "1MiB", "--key", "mine"];
    for paid in [0, 1, 2] {
        let sentence = kms.refused(&create, "KeyFeeUnpaid", Some("M03"));
        assert!(sentence.contains("account credit"), "{sentence}");
        assert_eq!(months(&kms), 1 + paid);
        kms.ok(&["account", "credit", "default", &FEE.to_string()]);
        assert_eq!(kms.ok(&["usage"])["balance"], 0, "it went to what is owed");
    }
    kms.ok(&create);
    assert_eq!(months(&kms), 4);
}
