//! fio on a file of its own: what the storage gives without a backend in between.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::compare::Measured;
use crate::load::Shape;

/// A file that fio reads and writes, past the page cache and by io_uring.
#[derive(Clone, Debug)]
pub(crate) struct Fio {
    /// For tables.
    pub(crate) name: &'static str,
    file: PathBuf,
}

impl Fio {
    /// Below `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Fio {
            name: "fio",
            file: directory.join("fio.img"),
        }
    }

    /// Writes the whole file once.
    ///
    /// # Errors
    /// fio is missing or fails.
    pub(crate) fn fill(&self, shape: &Shape) -> io::Result<()> {
        self.run(shape, None).map(drop)
    }

    /// Runs a load for a time. Processor time is fio's own, which makes the load, too.
    ///
    /// # Errors
    /// fio is missing or fails.
    pub(crate) fn measure(&self, shape: &Shape, time: Duration) -> io::Result<Measured> {
        let report = self.run(shape, Some(time))?;
        let job = &report["jobs"][0];
        let side = &job[if shape.write { "write" } else { "read" }];
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let in_requests = shape.block < 64 << 10;
        let speed = number(&side[if in_requests { "iops" } else { "bw_bytes" }]);
        let percentile = |name| number(&side["clat_ns"]["percentile"][name]) / 1e3;
        // In percent of the time of all its threads.
        let busy = (number(&job["usr_cpu"]) + number(&job["sys_cpu"])) / 100.0 * f64::from(shape.queues);
        let requests = number(&side["total_ios"]);
        let seconds = number(&side["runtime"]) / 1e3;
        Ok(Measured {
            speed,
            processor: busy * seconds * 1e6 / requests,
            p50: percentile("50.000000"),
            p99: percentile("99.000000"),
        })
    }

    fn run(&self, shape: &Shape, time: Option<Duration>) -> io::Result<Value> {
        let mut command = Command::new("fio");
        let way = match (shape.random, shape.write) {
            (true, true) => "randwrite",
            (true, false) => "randread",
            (false, true) => "write",
            (false, false) => "read",
        };
        command.args([
            "--name=fio",
            "--output-format=json",
            "--direct=1",
            "--ioengine=io_uring",
        ]);
        // Threads in place of queues; all are shown as one.
        command.args(["--thread", "--group_reporting", "--norandommap", "--randrepeat=0"]);
        command.arg(format!("--filename={}", self.file.display()));
        command.arg(format!("--rw={way}"));
        command.arg(format!("--bs={}", shape.block));
        command.arg(format!("--iodepth={}", shape.depth));
        command.arg(format!("--numjobs={}", shape.queues));
        command.arg(format!("--size={}", shape.span));
        match time {
            Some(time) => {
                let ramp = "--ramp_time=100ms";
                let runtime = format!("--runtime={}ms", time.as_millis());
                command.args(["--time_based", ramp]).arg(runtime);
            }
            None => {
                command.arg("--end_fsync=1");
            }
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("fio: {}", output.status)));
        }
        // It may say something else first.
        let text = String::from_utf8_lossy(&output.stdout);
        let begin = text.find('{').unwrap_or(0);
        serde_json::from_str(&text[begin..]).map_err(io::Error::other)
    }
}
