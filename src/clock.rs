//! The only reader of time.
//!
//! One clock for everything: monotonic, anchored to the wall when it is made, so that times on the wire are of the world
//! and never run backwards. Code that decides is handed `now`; only the shells around it read the clock.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::market::UnixNanos;

/// A monotonic clock that tells the world's time. Copies of one clock agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    wall: UnixNanos,
}

impl Clock {
    /// Anchors a clock to the wall, now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
    pub fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            anchor: Instant::now(),
            wall: UnixNanos(wall.as_nanos() as u64),
        }
    }

    /// The time now; never before an earlier answer.
    pub fn now(&self) -> UnixNanos {
        self.wall.plus(self.anchor.elapsed())
    }

    /// The runtime's instant at which this clock shows `time`.
    pub fn instant_at(&self, time: UnixNanos) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.anchor + time.since(self.wall))
    }

    /// Waits until this clock shows `time`.
    pub async fn sleep_until(&self, time: UnixNanos) {
        tokio::time::sleep_until(self.instant_at(time)).await;
    }
}

/// Wakes a task to the microsecond, where the runtime's own timers go by milliseconds.
#[derive(Debug)]
pub struct Alarm {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm of this clock; to be made in a runtime.
    #[expect(
        deprecated,
        reason = "unsound for types that don't own their descriptor; an OwnedFd does, and the new way is unsafe"
    )]
    pub fn new(clock: Clock) -> io::Result<Self> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self {
            clock,
            timer: AsyncFd::with_interest(timer, Interest::READABLE)?,
        })
    }

    /// Waits until the clock shows `time`.
    pub async fn until(&self, time: UnixNanos) -> io::Result<()> {
        let left = time.since(self.clock.now());
        if left.is_zero() {
            return Ok(());
        }
        let it_value = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value,
        };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        let mut expired = [0; 8];
        self.timer
            .async_io(Interest::READABLE, |timer| {
                Ok(rustix::io::read(timer, &mut expired)?)
            })
            .await?;
        Ok(())
    }
}

/// How long this thread has run on a processor.
pub fn thread_cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}
