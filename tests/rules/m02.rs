//! M02: free calls each month, then the account's balance; without one the call is refused, and guests go on.

use sealblk_e2e::catalogue::Catalogue;

use crate::scene::{Side, assert_side, attach, each_closed, mark, marked, open_gate};

/// Suffices for a disk and its attach, at the price of the profiles that have one.
const BALANCE: u64 = 200;
const CREATE: [&str; 5] = ["disk", "create", "more", "--size", "1MiB"];

#[test]
fn rule_m02_beyond_the_free_calls_a_call_needs_a_balance() {
    const EXHAUSTED: Side = Err(("BalanceExhausted", "M02"));
    let uses_up = format!(
        "INSERT INTO usage (account, region, month, kind, calls)
         VALUES ('default', 'elsewhere', strftime('%Y-%m', 'now'), 'attach', {})",
        20_000
    );
    // What is left of the balance after two calls, and what becomes of a third.
    let table = [
        ("tencent-cbs", (0, EXHAUSTED)),
        // The month's free calls were made in another region.
        ("alibaba-ecs-classic", (0, EXHAUSTED)),
        ("alibaba-ecs", (BALANCE, Ok(()))),
        ("huawei-evs", (BALANCE, Ok(()))),
        ("sealblk", (BALANCE, Ok(()))),
    ];
    each_closed(BALANCE, table, |kms, (left, third)| {
        open_gate(kms);
        kms.ok(&["instance", "register", "vm"]);
        kms.stop();
        Catalogue::open(&kms.state()).execute(&uses_up);
        kms.serve();
        kms.create("data", &[]);
        let mut guest = attach(kms, "data");
        assert_eq!(kms.ok(&["usage"])["balance"], left);
        assert_side(kms, &CREATE, third);
        // Without a balance as with one.
        mark(&mut guest, 1);
        assert_eq!(marked(&mut guest), 1);
        kms.create("plain", &["--encrypted=false"]);
        kms.ok(&["account", "credit", "default", "100"]);
        kms.ok(&["disk", "create", "paid", "--size", "1MiB"]);
    });
}
