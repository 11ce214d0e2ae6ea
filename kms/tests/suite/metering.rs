//! Metering and balances (rules M01 and M02): exact, whoever calls at once and whatever dies.

use crate::common;

use std::time::Duration;

use crate::common::{Kms, MIB, json};

/// Of `alibaba-ecs-classic`, all of whose free calls this month but `left` were made in another region.
fn classic(balance: u64, left: u64) -> Kms {
    let mut kms = Kms::of_profile("alibaba-ecs-classic", balance);
    kms.make("/v1/kms/activate", json!({}));
    kms.kill();
    kms.tamper(&format!(
        "INSERT INTO usage (account, region, month, kind, calls)
         VALUES ('default', 'eu-2', strftime('%Y-%m', 'now'), 'attach', {})",
        20_000 - left
    ));
    kms.serve();
    kms
}

fn balance(kms: &Kms) -> u64 {
    kms.get("/v1/usage")["balance"].as_u64().unwrap()
}

/// What was taken for calls in the region of the test.
fn charged(kms: &Kms) -> i64 {
    kms.query("SELECT coalesce(sum(charged), 0) FROM usage WHERE region = 'eu-1'")
}

#[test]
fn rule_m02_beyond_the_free_calls_a_call_costs_and_without_balance_it_is_refused() {
    let kms = classic(250, 1);
    kms.instance("vm");
    kms.disk("one");
    assert_eq!(balance(&kms), 250, "the last free call, over all regions");
    kms.disk("two");
    let attachment = kms.attach("one", "vm");
    assert_eq!((balance(&kms), charged(&kms)), (50, 200));
    let exhausted = |path: &str, body| {
        let answer = kms.refuses(path, body, "BalanceExhausted", Some("M02"));
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("account credit default"), "{message}");
    };
    exhausted("/v1/disks", json!({"name": "three", "size": MIB}));
    exhausted("/v1/attachments", json!({"disk": "two", "instance": "vm"}));
    exhausted("/v1/disks/one/detach", json!({}));
    assert_eq!(
        (kms.usage("create"), kms.usage("attach"), kms.usage("detach")),
        (2, 20_000, 0)
    );
    assert_eq!(kms.get("/v1/disks")["disks"].as_array().unwrap().len(), 2);
    assert_eq!(kms.get("/v1/disks/two")["state"], "available");
    assert_eq!(
        kms.audit("detach"),
        [("refused".to_owned(), "BalanceExhausted".to_owned())]
    );
    // What is not metered goes on: the disk's process, its restart, and plain disks.
    let disk = kms.get("/v1/disks/one");
    assert_eq!(
        (&disk["state"], &disk["pid"]),
        (&json!("in-use"), &attachment["pid"])
    );
    common::kill(attachment["pid"].as_i64().unwrap(), "KILL");
    kms.until("a new backend", || {
        let disk = kms.get("/v1/disks/one");
        disk["pid"].is_i64() && disk["pid"] != attachment["pid"]
    });
    kms.plain("plain");
    assert_eq!(balance(&kms), 50);
    // Credit makes it possible again.
    let account = kms.make("/v1/accounts/default/credit", json!({"amount": 50}));
    assert_eq!(
        (&account["balance"], &account["charged"]),
        (&json!(100), &json!(200))
    );
    kms.make("/v1/disks/one/detach", json!({}));
    assert_eq!((balance(&kms), charged(&kms)), (0, 300));
}

#[test]
fn rule_m02_what_is_undone_is_given_back() {
    let mut kms = classic(1000, 0);
    kms.instance("vm");
    kms.disk("data");
    kms.behave("unfit");
    kms.restart();
    let body = json!({"disk": "data", "instance": "vm"});
    assert!(kms.post("/v1/attachments", body).0 >= 400);
    assert_eq!(
        (balance(&kms), charged(&kms), kms.usage("attach")),
        (900, 100, 20_000)
    );
}

#[test]
fn rule_m02_credit_is_a_positive_amount_and_balances_have_a_limit() {
    let kms = Kms::of_profile("alibaba-ecs-classic", 7);
    let path = "/v1/accounts/default/credit";
    for amount in [0, 9_000_000_000_000_000, u64::MAX] {
        kms.refuses(path, json!({"amount": amount}), "InvalidAmount", None);
    }
    for body in [json!({"amount": -1}), json!({"amount": 1.5}), json!({})] {
        kms.refuses(path, body, "InvalidRequest", None);
    }
    kms.refuses(
        "/v1/accounts/nobody/credit",
        json!({"amount": 1}),
        "NotFound",
        None,
    );
    assert_eq!(balance(&kms), 7);
    let state = kms.path("other");
    kms.fails(
        &[
            "init",
            "--state",
            &state,
            "--region",
            "r",
            "--balance",
            "9000000000000001",
        ],
        "InvalidAmount",
    );
}

#[test]
fn rule_m02_fifty_callers_at_once_share_a_balance_exactly() {
    let kms = classic(3000, 5);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let create = |number| {
            let kms = &kms;
            let body = json!({"name": format!("disk{number}"), "size": MIB, "store": "raw"});
            scope.spawn(move || kms.post("/v1/disks", body))
        };
        let threads: Vec<_> = (0..50).map(create).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let made = answers.iter().filter(|(status, _)| *status == 201).count();
    let refused = answers
        .iter()
        .filter(|(status, answer)| *status == 402 && answer["rule"] == "M02");
    assert_eq!((made, refused.count()), (35, 15), "5 free, 30 paid");
    assert_eq!((kms.usage("create"), balance(&kms), charged(&kms)), (35, 0, 3000));
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 35);
}

#[test]
fn rule_m02_a_killed_daemon_loses_and_invents_no_call() {
    const BALANCE: i64 = 1_000_000;
    let mut kms = classic(BALANCE.unsigned_abs(), 0);
    kms.instance("vm");
    for round in 0..3 {
        let pid = i64::from(kms.daemon.as_ref().unwrap().id());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let kms = &kms;
                scope.spawn(move || {
                    for number in 0.. {
                        let name = format!("disk{round}.{thread}.{number}");
                        let create = json!({"name": name, "size": MIB, "store": "raw"});
                        let attach = json!({"disk": name, "instance": "vm"});
                        let detach = format!("/v1/disks/{name}/detach");
                        for (path, body) in [
                            ("/v1/disks", create),
                            ("/v1/attachments", attach),
                            (detach.as_str(), json!({})),
                        ] {
                            let body = body.to_string();
                            if kms.try_call("POST", path, Some(body.as_bytes())).is_none() {
                                return;
                            }
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(700));
            common::kill(pid, "KILL");
        });
        kms.restart();
        kms.until("no operation is open", || {
            kms.query("SELECT count(*) FROM intents") == 0
        });
    }
    let calls = kms.query("SELECT sum(calls) FROM usage WHERE region = 'eu-1'");
    assert!(calls > 0);
    for (call, kind) in [
        ("disk.create", "create"),
        ("attach", "attach"),
        ("detach", "detach"),
    ] {
        let decided = |decision: &str| {
            kms.query(&format!(
                "SELECT count(*) FROM audit WHERE call = '{call}' AND decision = '{decision}'"
            ))
        };
        let counted = kms.query(&format!(
            "SELECT coalesce(sum(calls), 0) FROM usage WHERE region = 'eu-1' AND kind = '{kind}'"
        ));
        assert_eq!(counted, decided("allowed") - decided("failed"), "{call}");
    }
    assert_eq!(
        kms.query("SELECT calls FROM usage WHERE region = 'eu-1' AND kind = 'create'"),
        kms.query("SELECT count(*) FROM disks")
    );
    assert_eq!(charged(&kms), 100 * calls);
    assert_eq!(kms.query("SELECT balance FROM accounts"), BALANCE - 100 * calls);
}
