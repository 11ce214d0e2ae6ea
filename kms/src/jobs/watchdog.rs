//! Tells systemd that the daemon still runs (`WatchdogSec=` of its unit, `sd_watchdog_enabled(3)`): a daemon whose threads are all
//! stuck is ended and started again, while its disks are served.

use std::time::Duration;

use sealblk_proto::process::notify;

/// Tells it twice in the time that systemd waits, if it waits for this process.
pub(crate) async fn run() {
    let said = |name| std::env::var(name).ok();
    let Some(time) = time(said("WATCHDOG_USEC"), said("WATCHDOG_PID"), std::process::id()) else {
        return;
    };
    let mut ticks = tokio::time::interval(time / 2);
    loop {
        ticks.tick().await;
        if let Err(error) = notify("WATCHDOG=1") {
            log::warn!("systemd cannot be told that this daemon runs: {error}");
        }
    }
}

/// How long systemd waits for a sign of life of `own`. The variables may be another process's, which has started this one.
fn time(microseconds: Option<String>, process: Option<String>, own: u32) -> Option<Duration> {
    let is_own = process.is_none_or(|process| process == own.to_string());
    let microseconds = microseconds?.parse().ok().filter(|&time| is_own && time > 1)?;
    Some(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_watchdog_of_this_process_is_told() {
        let time = |time: &str, process: Option<&str>| {
            super::time(Some(time.to_owned()), process.map(str::to_owned), 7)
        };
        assert_eq!(time("60000000", Some("7")), Some(Duration::from_secs(60)));
        assert_eq!(time("60000000", None), Some(Duration::from_secs(60)));
        for (other, process) in [("60000000", "8"), ("0", "7"), ("1", "7"), ("-1", "7"), ("", "7")] {
            assert_eq!(time(other, Some(process)), None, "{other} of {process}");
        }
        assert_eq!(super::time(None, Some("7".to_owned()), 7), None);
    }
}
