//! Threads that wait for work, each with an io_uring of its own: all that there will ever be. They are made before the process
//! looks at anything that a guest or a frontend has sent, which it may then do without the right to make any.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Engine, Interrupter};
use crate::limits::WORKER_STACK_BYTES;
use crate::sandbox::{Kind, narrow_early};

/// What a thread is to do with its engine. The engine comes back with nothing in flight.
type Job = Box<dyn FnOnce(Engine) -> Engine + Send>;

/// All threads that queues can have.
pub struct Crew {
    /// The last one to be given back is the first to be taken: its memory is there already.
    idle: Mutex<Vec<Member>>,
    /// For what concerns no thread of the crew.
    spare: Mutex<Interrupter>,
    size: usize,
}

struct Member {
    /// None: it is being ended.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    interrupter: Arc<Mutex<Interrupter>>,
}

/// A thread of the crew, for as long as this lives.
pub(crate) struct Hired {
    crew: Arc<Crew>,
    /// None only while this is dropped.
    member: Option<Member>,
}

/// What a crew works with. The kernel counts it as locked memory, unless it is made with CAP_IPC_LOCK: 24 KiB for each thread.
pub struct Rings {
    members: Vec<(Engine, Interrupter)>,
    spare: Interrupter,
}

impl Rings {
    /// For `wanted` threads, or for as many as there is memory for, but not less than `least`.
    ///
    /// # Errors
    /// The kernel's: no memory, or no io_uring (`ENOSYS`, or `EPERM` by `kernel.io_uring_disabled`).
    pub fn new(wanted: usize, least: usize) -> io::Result<Self> {
        let spare = Interrupter::new()?;
        let mut members = Vec::with_capacity(wanted);
        while members.len() < wanted {
            let member = Engine::new().and_then(|engine| Ok((engine, Interrupter::new()?)));
            match member {
                Ok(member) => members.push(member),
                Err(error) if members.len() < least || error.kind() != io::ErrorKind::OutOfMemory => {
                    return Err(error);
                }
                Err(_) => break,
            }
        }
        Ok(Rings { members, spare })
    }

    /// Whether the kernel refuses all io_uring operations but those that queues need (`IORING_REGISTER_RESTRICTIONS`).
    pub fn are_restricted(&self) -> bool {
        let is_restricted = |(engine, interrupter): &(Engine, Interrupter)| {
            engine.is_restricted() && interrupter.is_restricted()
        };
        self.spare.is_restricted() && self.members.iter().all(is_restricted)
    }
}

impl Crew {
    /// So many threads, which sleep.
    ///
    /// # Errors
    /// The kernel's, as for [`Rings::new`], or no more threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        Self::with(Rings::new(threads, threads)?)
    }

    /// A thread for each ring.
    ///
    /// # Errors
    /// The kernel's: no more threads.
    pub fn with(rings: Rings) -> io::Result<Self> {
        let (ready, readiness) = mpsc::channel();
        let size = rings.members.len();
        let members = rings.members.into_iter().enumerate();
        let start =
            |(number, (engine, interrupter))| Member::start(number, engine, interrupter, ready.clone());
        let idle = members.rev().map(start).collect::<io::Result<_>>()?;
        for _ in 0..size {
            readiness.recv().map_err(io::Error::other)??;
        }
        Ok(Crew {
            idle: Mutex::new(idle),
            spare: Mutex::new(rings.spare),
            size,
        })
    }

    /// Queues that can be served at a time.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A thread that nobody has, if there is one.
    pub(crate) fn hire(self: &Arc<Self>) -> Option<Hired> {
        let member = self.idle().pop()?;
        Some(Hired {
            crew: self.clone(),
            member: Some(member),
        })
    }

    /// Whether a descriptor is an eventfd's.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn is_eventfd(&self, file: &impl AsRawFd) -> io::Result<bool> {
        let mut spare = lock(&self.spare);
        match spare.set(Some(file)) {
            Ok(()) => spare.set(None::<&File>).map(|()| true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Interrupts the guest or frontend that waits for this eventfd, once. Never waits.
    ///
    /// # Errors
    /// As [`Interrupter::set`].
    pub(crate) fn interrupt(&self, eventfd: &impl AsRawFd) -> io::Result<()> {
        let mut spare = lock(&self.spare);
        spare.set(Some(eventfd))?;
        spare.signal()?;
        spare.set(None::<&File>)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Member>> {
        // No code panics while it holds the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn start(
        number: usize,
        engine: Engine,
        interrupter: Interrupter,
        ready: Sender<io::Result<()>>,
    ) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("queue-{number}"))
            .stack_size(WORKER_STACK_BYTES)
            .spawn(move || work(engine, &ready, &jobs))?;
        Ok(Member {
            jobs: Some(sender),
            thread: Some(thread),
            interrupter: Arc::new(Mutex::new(interrupter)),
        })
    }
}

fn work(mut engine: Engine, ready: &Sender<io::Result<()>>, jobs: &Receiver<Job>) {
    let enabled = engine.enable().and_then(|()| narrow_early(Kind::Queue));
    let is_usable = enabled.is_ok();
    // Nobody listens any more if another one has failed.
    let _ = ready.send(enabled);
    if is_usable {
        for job in jobs {
            engine = job(engine);
        }
    }
}

impl Drop for Member {
    /// Ends the thread, after what it has been given to do.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The owner of the thread's last job has heard of its panic.
            let _ = thread.join();
        }
    }
}

impl Hired {
    /// Interrupts on behalf of what the thread does.
    pub(crate) fn interrupter(&self) -> &Arc<Mutex<Interrupter>> {
        &self.member().interrupter
    }

    /// Has the thread do this, after all that it was given before.
    pub(crate) fn give(&self, job: impl FnOnce(Engine) -> Engine + Send + 'static) {
        if let Some(jobs) = &self.member().jobs {
            // If the thread has panicked the job is dropped, and the receiver of its result sees that.
            let _ = jobs.send(Box::new(job));
        }
    }

    /// The panic that has ended the thread; none if its end was orderly.
    pub(crate) fn panic(mut self) -> Option<Box<dyn Any + Send>> {
        let mut member = self.member.take()?;
        member.jobs = None;
        member.thread.take()?.join().err()
    }

    fn member(&self) -> &Member {
        self.member.as_ref().expect("there is one until this is dropped")
    }
}

impl Drop for Hired {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            if let Err(error) = lock(&member.interrupter).set(None::<&File>) {
                log::warn!("a call descriptor stays open: {error}");
            }
            self.crew.idle().push(member);
        }
    }
}

/// Held only for moments, since an interrupt never waits.
pub(crate) fn lock(interrupter: &Mutex<Interrupter>) -> MutexGuard<'_, Interrupter> {
    // No code panics while it holds the lock.
    interrupter.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::mpsc::sync_channel;

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::super::{Event, FileIndex};
    use super::*;

    fn crew(threads: usize) -> Arc<Crew> {
        let rings = Rings::new(threads, threads).unwrap();
        assert!(rings.are_restricted());
        Arc::new(Crew::with(rings).unwrap())
    }

    #[test]
    fn each_thread_is_hired_by_one_at_a_time() {
        let crew = crew(2);
        let (first, second) = (crew.hire().unwrap(), crew.hire().unwrap());
        assert!(crew.hire().is_none());
        drop(first);
        let third = crew.hire().unwrap();
        assert!(crew.hire().is_none());
        drop((second, third));
        assert_eq!(crew.idle().len(), 2);
    }

    #[test]
    fn a_thread_does_one_job_after_another_with_its_engine() {
        let crew = crew(1);
        let file = tempfile::tempfile().unwrap();
        let (sender, receiver) = sync_channel(1);
        for round in 0..3u64 {
            let (file, sender) = (file.try_clone().unwrap(), sender.clone());
            crew.hire().unwrap().give(move |mut engine| {
                engine.equip(1 << 16, [file.as_fd()]).unwrap();
                let buffer = engine.allocate(512).unwrap();
                engine
                    .write(FileIndex(0), round * 512, buffer, false, round)
                    .unwrap();
                engine.submit_and_wait().unwrap();
                let Some(Event::Completed(completion)) = engine.next_event().unwrap() else {
                    panic!("nothing was completed")
                };
                engine.free(completion.buffer.unwrap());
                sender.send(completion.tag).unwrap();
                engine
            });
            assert_eq!(receiver.recv().unwrap(), round);
        }
        assert_eq!(file.metadata().unwrap().len(), 3 * 512);
    }

    #[test]
    fn a_panic_is_told() {
        let crew = crew(1);
        let hired = crew.hire().unwrap();
        hired.give(|_| std::panic::resume_unwind(Box::new(4711)));
        assert_eq!(*hired.panic().unwrap().downcast::<i32>().unwrap(), 4711);
        assert!(crew.hire().is_none());
    }

    #[test]
    fn interrupts_are_of_who_has_hired() {
        let crew = crew(1);
        let eventfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let hired = crew.hire().unwrap();
        lock(hired.interrupter()).set(Some(&eventfd)).unwrap();
        drop(hired);
        lock(crew.hire().unwrap().interrupter()).signal().unwrap();
        assert!(eventfd.read().is_err());
        crew.interrupt(&eventfd).unwrap();
        assert_eq!(eventfd.read().unwrap(), 1);
        assert!(crew.is_eventfd(&eventfd).unwrap());
        assert!(!crew.is_eventfd(&tempfile::tempfile().unwrap()).unwrap());
    }

    /// From /proc/self/status, in KiB.
    fn memory(what: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn threads_without_work_take_little_memory() {
        let before = memory("VmRSS:");
        let crew = crew(crate::limits::MAX_SESSIONS * usize::from(crate::limits::MAX_QUEUES));
        assert!(memory("VmRSS:") - before < 24 << 10);
        assert_eq!(memory("VmLck:"), 0);
        drop(crew);
    }
}
