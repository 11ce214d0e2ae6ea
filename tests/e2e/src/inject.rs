//! System calls made by a thread of another process, as code that has taken that process over would make them. For x86-64.
//!
//! What they do or break must not end the process, and a call that is forbidden does. So each is made by a copy: with its
//! filters lifted for the moment (`PTRACE_O_SUSPEND_SECCOMP`) the thread forks, and the copy has all that the thread has,
//! its filters too, in force.

use std::fs;

use libc::user_regs_struct;
use nix::sys::ptrace::{self, AddressType, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::Errno;

/// ptrace(2).
const SUSPEND_SECCOMP: Options = Options::from_bits_retain(1 << 21);
/// `syscall`.
const INSTRUCTION: &[u8] = &[0x0f, 0x05];
/// Below the stack pointer and what the ABI keeps free there.
const BELOW_STACK: u64 = 1024;
/// Bytes there.
const ROOM: u64 = 768;

/// An argument of a system call.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A number.
    Number(u64),
    /// The address of these bytes.
    Bytes(Vec<u8>),
    /// What the call before has returned.
    Result,
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Argument::Number(number)
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Argument::Bytes([text.as_bytes(), b"\0"].concat())
    }
}

impl From<Vec<u8>> for Argument {
    fn from(bytes: Vec<u8>) -> Self {
        Argument::Bytes(bytes)
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has ended the process (SIGSYS).
    Killed,
    /// It was answered with an error.
    Refused(Errno),
    /// It was carried out, with this result.
    Done(u64),
}

/// Has a copy of the thread make calls, one after another as long as they are done. None if the thread has ended.
///
/// # Panics
/// If this process may not do so.
pub fn call(thread: i32, calls: &[(i64, Vec<Argument>)]) -> Option<Outcome> {
    let copy = Copy::of(Pid::from_raw(thread))?;
    let mut result = 0;
    for (number, arguments) in calls {
        match copy.call(*number, arguments, result) {
            Outcome::Done(done) => result = done,
            other => return Some(other),
        }
    }
    Some(Outcome::Done(result))
}

/// A stopped copy of a thread, as a process of its own, and the thread, stopped meanwhile. Dropping it ends the one and has
/// the other go on.
struct Copy {
    pid: Pid,
    thread: Pid,
    before: user_regs_struct,
    instruction: u64,
}

impl Copy {
    fn of(thread: Pid) -> Option<Self> {
        let instruction = find_instruction(thread)?;
        match ptrace::seize(thread, SUSPEND_SECCOMP | Options::PTRACE_O_TRACEFORK) {
            Err(nix::Error::ESRCH) => return None,
            seized => seized.expect("a thread to stop"),
        }
        ptrace::interrupt(thread).expect("the thread is ours");
        wait(thread);
        let before = ptrace::getregs(thread).expect("registers");
        let mut status = begin(thread, before, instruction, libc::SYS_fork, [0; 6]);
        // An earlier copy may just have ended: its signal comes before the call.
        while let WaitStatus::Stopped(_, Signal::SIGCHLD) = status {
            ptrace::cont(thread, None).expect("the thread is ours");
            status = wait(thread);
        }
        let WaitStatus::PtraceEvent(..) = status else {
            panic!("no copy: {status:?}");
        };
        let pid = Pid::from_raw(ptrace::getevent(thread).expect("its number") as i32);
        wait(pid);
        // To the end of the call.
        ptrace::step(thread, None).expect("a step");
        wait(thread);
        // From here on its filters hold.
        ptrace::setoptions(pid, Options::PTRACE_O_EXITKILL).expect("options");
        Some(Copy {
            pid,
            thread,
            before,
            instruction,
        })
    }

    fn call(&self, number: i64, arguments: &[Argument], result: u64) -> Outcome {
        let registers = ptrace::getregs(self.pid).expect("registers");
        let mut at = (registers.rsp - BELOW_STACK - ROOM) & !15;
        let mut values = [0; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => *number,
                Argument::Result => result,
                Argument::Bytes(bytes) => {
                    let place = at;
                    at += self.put(place, bytes);
                    place
                }
            };
        }
        match begin(self.pid, registers, self.instruction, number, values) {
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => Outcome::Killed,
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let result = ptrace::getregs(self.pid).expect("registers").rax as i64;
                match i32::try_from(-result) {
                    Ok(errno @ 1..4096) => Outcome::Refused(Errno::from_raw_os_error(errno)),
                    _ => Outcome::Done(result as u64),
                }
            }
            other => panic!("call {number}: {other:?}"),
        }
    }

    /// Writes bytes, and returns how much room they take.
    fn put(&self, place: u64, bytes: &[u8]) -> u64 {
        for (index, word) in bytes.chunks(8).enumerate() {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            let address = (place + 8 * index as u64) as AddressType;
            ptrace::write(self.pid, address, i64::from_ne_bytes(whole)).expect("its stack");
        }
        let room = (bytes.len() as u64).next_multiple_of(16);
        assert!(room <= ROOM / 2, "an argument is too long");
        room
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
        // It is the process's child, who does not know of it.
        let reap = [self.pid.as_raw() as u64, 0, libc::__WALL as u64, 0, 0, 0];
        begin(self.thread, self.before, self.instruction, libc::SYS_wait4, reap);
        // As if nothing had been: the call that was interrupted is begun again.
        ptrace::setregs(self.thread, self.before).expect("registers");
        ptrace::detach(self.thread, None).expect("it goes on");
    }
}

/// Makes a call, and waits for its end or whatever comes sooner.
fn begin(
    thread: Pid,
    registers: user_regs_struct,
    instruction: u64,
    number: i64,
    arguments: [u64; 6],
) -> WaitStatus {
    let [rdi, rsi, rdx, r10, r8, r9] = arguments;
    let registers = user_regs_struct {
        rip: instruction,
        rax: number as u64,
        // So that the call it was in is not begun again before.
        orig_rax: u64::MAX,
        rdi,
        rsi,
        rdx,
        r10,
        r8,
        r9,
        ..registers
    };
    ptrace::setregs(thread, registers).expect("registers");
    ptrace::step(thread, None).expect("a step");
    wait(thread)
}

/// Where libc has the instruction.
fn find_instruction(thread: Pid) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{thread}/maps")).ok()?;
    let is_code = |line: &&str| line.contains(" r-xp ") && line.contains("/libc.so");
    // proc_pid_maps(5).
    let fields: Vec<_> = maps.lines().find(is_code)?.split_whitespace().collect();
    let (start, _) = fields[0].split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let offset = usize::from_str_radix(fields[2], 16).ok()?;
    let library = fs::read(fields[5]).ok()?;
    let place = memchr::memmem::find(library.get(offset..)?, INSTRUCTION)?;
    Some(start + place as u64)
}

fn wait(thread: Pid) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a thread of ours")
}
