//! The only module that reads the time.
//!
//! All code shares one clock: monotonic and anchored to the wall clock when it is created, so that
//! published times are real times and never decrease. Decision logic receives `now` as an argument;
//! only the code around it reads the clock.
//!
//! The wall clock may be set while the server runs. `Clock::follow_wall` then corrects this clock.
//! If it is more than a second behind, it is stepped forward at once; any other difference is
//! corrected by running up to 10 % faster or slower.

#[cfg(feature = "internals")]
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
#[cfg(feature = "internals")]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "internals")]
use std::sync::{Mutex, MutexGuard, PoisonError};
#[cfg(feature = "internals")]
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::market::UnixNanos;

/// Lag behind the wall clock above which the clock is stepped forward.
const STEP_MIN: Duration = Duration::from_secs(1);
/// Differences up to this value are ignored, in nanoseconds.
const TOLERANCE_NANOS: i64 = 5_000_000;
/// Target time for correcting a difference, subject to the maximum change of rate; in seconds.
const MAKE_UP_SECONDS: i64 = 2;
/// Maximum change of rate, in millionths.
const RATE_MAX: i64 = 100_000;
/// Delay before a new rate applies, so that no reader has passed that point yet.
const LEAD: Duration = Duration::from_millis(100);
/// Maximum time between reading the wall clock and the monotonic clock for the pair to be used.
const READ_GAP_MAX: Duration = Duration::from_millis(1);

/// Monotonic clock that shows wall-clock time. All copies of a clock agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    /// Shared by all copies and never freed: a clock lives as long as its process.
    course: &'static ArcSwap<Course>,
    /// Time of a simulation, which replaces the course.
    #[cfg(feature = "internals")]
    simulated: Option<&'static SimulatedTime>,
}

/// Time of a simulation: it passes only as far as it is told to, and with each reading.
#[cfg(feature = "internals")]
#[derive(Debug)]
struct SimulatedTime {
    now: AtomicU64,
    /// Nanoseconds that pass with each reading.
    per_reading: AtomicU64,
    /// By time: tasks to be woken.
    sleepers: Mutex<BTreeMap<UnixNanos, Vec<Waker>>>,
}

#[cfg(feature = "internals")]
impl SimulatedTime {
    fn sleepers(&self) -> MutexGuard<'_, BTreeMap<UnixNanos, Vec<Waker>>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once the simulation has come to this time; wakes the task then.
    fn poll_at(&self, time: UnixNanos, context: &Context<'_>) -> Poll<()> {
        if self.now.load(Ordering::Relaxed) >= time.0 {
            return Poll::Ready(());
        }
        let mut sleepers = self.sleepers();
        let at_time = sleepers.entry(time).or_default();
        if !at_time.iter().any(|other| other.will_wake(context.waker())) {
            at_time.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn wake_due(&self) {
        let now = self.now.load(Ordering::Relaxed);
        let mut sleepers = self.sleepers();
        while let Some(first) = sleepers.first_entry() {
            if first.key().0 > now {
                break;
            }
            first.remove().into_iter().for_each(Waker::wake);
        }
    }
}

/// Course of the clock: one rate up to a moment, and another from then on. Times are relative to
/// the anchor.
#[derive(Debug, Clone, Copy)]
struct Course {
    before: Stretch,
    turn: Duration,
    after: Stretch,
}

/// Period with a constant rate.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Duration,
    shows: UnixNanos,
    /// Nanoseconds gained per million; negative if the clock runs slower.
    faster: i64,
}

/// Result of following the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Followed {
    /// Wall clock minus this clock before the correction, in nanoseconds.
    pub skew: i64,
    /// True if the clock was stepped forward by the skew.
    pub stepped: bool,
}

impl Stretch {
    /// Time shown at a moment of this period.
    fn at(&self, moment: Duration) -> UnixNanos {
        let passed = moment.saturating_sub(self.from);
        let shows = self.shows.plus(passed);
        if self.faster == 0 {
            return shows;
        }
        let gained = passed.as_nanos() as i128 * i128::from(self.faster) / 1_000_000;
        UnixNanos(shows.0.saturating_add_signed(gained as i64))
    }

    /// Moment at which the clock shows a time.
    fn moment(&self, time: UnixNanos) -> Duration {
        let left = time.since(self.shows);
        self.from + self.real(left)
    }

    /// Real time that elapses while the clock advances by `shown`.
    fn real(&self, shown: Duration) -> Duration {
        if self.faster == 0 {
            return shown;
        }
        let rate = (1_000_000 + self.faster) as u128;
        let real = (shown.as_nanos() * 1_000_000).div_ceil(rate);
        Duration::from_nanos(u64::try_from(real).unwrap_or(u64::MAX))
    }
}

impl Course {
    fn stretch(&self, moment: Duration) -> &Stretch {
        if moment < self.turn {
            &self.before
        } else {
            &self.after
        }
    }

    fn at(&self, moment: Duration) -> UnixNanos {
        self.stretch(moment).at(moment)
    }

    /// Course that converges to the wall clock, which showed `wall` at `moment`.
    fn corrected(&self, moment: Duration, wall: UnixNanos) -> (Option<Self>, Followed) {
        let now = self.at(moment);
        let skew = wall.0.wrapping_sub(now.0) as i64;
        let stepped = wall.since(now) > STEP_MIN;
        let followed = Followed { skew, stepped };
        let before = *self.stretch(moment);
        if stepped {
            let after = Stretch {
                from: moment,
                shows: wall,
                faster: 0,
            };
            let turn = moment;
            return (
                Some(Self {
                    before,
                    turn,
                    after,
                }),
                followed,
            );
        }
        let faster = if skew.abs() <= TOLERANCE_NANOS {
            0
        } else {
            (skew / (1000 * MAKE_UP_SECONDS)).clamp(-RATE_MAX, RATE_MAX)
        };
        if moment < self.turn || faster == before.faster {
            return (None, followed);
        }
        let turn = moment + LEAD;
        let after = Stretch {
            from: turn,
            shows: before.at(turn),
            faster,
        };
        (
            Some(Self {
                before,
                turn,
                after,
            }),
            followed,
        )
    }
}

impl Clock {
    /// Creates a clock anchored to the current wall-clock time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
    pub fn start() -> Self {
        let stretch = Stretch {
            from: Duration::ZERO,
            shows: wall(),
            faster: 0,
        };
        let course = Course {
            before: stretch,
            turn: Duration::ZERO,
            after: stretch,
        };
        Self {
            anchor: Instant::now(),
            course: Box::leak(Box::new(ArcSwap::from_pointee(course))),
            #[cfg(feature = "internals")]
            simulated: None,
        }
    }

    /// Creates a clock that shows `time` until it is set to another one.
    #[cfg(feature = "internals")]
    pub fn simulated(time: UnixNanos) -> Self {
        let simulated = SimulatedTime {
            now: AtomicU64::new(time.0),
            per_reading: AtomicU64::new(0),
            sleepers: Mutex::default(),
        };
        Self {
            simulated: Some(Box::leak(Box::new(simulated))),
            ..Self::start()
        }
    }

    /// Sets a simulated clock forward, and the time that passes with each reading from then on.
    #[cfg(feature = "internals")]
    pub fn advance_to(&self, time: UnixNanos, per_reading: Duration) {
        if let Some(simulated) = self.simulated {
            simulated.now.fetch_max(time.0, Ordering::Relaxed);
            let nanos = per_reading.as_nanos() as u64;
            simulated.per_reading.store(nanos, Ordering::Relaxed);
            simulated.wake_due();
        }
    }

    /// Time at which the next task of a simulation is to be woken.
    #[cfg(feature = "internals")]
    pub fn next_sleeper(&self) -> Option<UnixNanos> {
        let sleepers = self.simulated?.sleepers();
        sleepers.first_key_value().map(|(time, _)| *time)
    }

    /// Current time; never earlier than a previous result.
    pub fn now(&self) -> UnixNanos {
        #[cfg(feature = "internals")]
        if let Some(simulated) = self.simulated {
            let passed = simulated.per_reading.load(Ordering::Relaxed);
            return UnixNanos(simulated.now.fetch_add(passed, Ordering::Relaxed));
        }
        // Read the moment first, so that a course that begins later shows at least its start.
        let moment = self.anchor.elapsed();
        self.course.load().at(moment)
    }

    /// Corrects this clock and all its copies towards the wall clock. Must be called about once per
    /// second.
    pub fn follow_wall(&self) -> Option<Followed> {
        // The thread may be preempted between the two readings.
        (0..3).find_map(|_| {
            let before = self.anchor.elapsed();
            let wall = wall();
            let gap = self.anchor.elapsed().checked_sub(before)?;
            (gap <= READ_GAP_MAX).then(|| self.follow(before, wall))
        })
    }

    /// Corrects this clock towards a wall clock that currently shows `wall`.
    #[cfg(feature = "internals")]
    pub fn follow_time(&self, wall: UnixNanos) -> Followed {
        self.follow(self.anchor.elapsed(), wall)
    }

    fn follow(&self, moment: Duration, wall: UnixNanos) -> Followed {
        let mut done = Followed::default();
        // Recomputed if another thread changed the course in the meantime.
        self.course.rcu(|course| {
            let (next, followed) = course.corrected(moment, wall);
            done = followed;
            next.map_or_else(|| Arc::clone(course), Arc::new)
        });
        done
    }

    /// Runtime instant at which this clock shows `time`, at its current rate.
    pub fn instant_at(&self, time: UnixNanos) -> tokio::time::Instant {
        let course = self.course.load();
        let moment = if time < course.after.shows {
            course.before.moment(time).min(course.turn)
        } else {
            course.after.moment(time)
        };
        tokio::time::Instant::from_std(self.anchor + moment)
    }

    /// Timer that expires once, when this clock shows `time` if its rate does not change.
    pub fn timer(&self, time: UnixNanos) -> impl Future<Output = ()> + use<> {
        let clock = *self;
        async move {
            #[cfg(feature = "internals")]
            if clock.simulated.is_some() {
                // Nothing wakes it: a simulation polls again once it has set the clock.
                return std::future::poll_fn(|_| {
                    if clock.now() >= time {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
            tokio::time::sleep_until(clock.instant_at(time)).await;
        }
    }

    /// Waits until this clock shows `time`.
    pub async fn sleep_until(&self, time: UnixNanos) {
        #[cfg(feature = "internals")]
        if let Some(simulated) = self.simulated {
            return std::future::poll_fn(|context| simulated.poll_at(time, context)).await;
        }
        loop {
            tokio::time::sleep_until(self.instant_at(time)).await;
            // The clock may have slowed down in the meantime.
            if self.now() >= time {
                return;
            }
        }
    }

    /// Current time on this clock and since the boot of the machine.
    pub fn moment(&self) -> Moment {
        Moment {
            wall: self.now(),
            boot: BootTime::read(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
fn wall() -> UnixNanos {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixNanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX))
}

/// Time on the wall clock and on the monotonic clock of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Wall-clock time.
    pub wall: UnixNanos,
    /// Time since boot; `None` if the platform does not provide it.
    pub boot: Option<BootTime>,
}

/// Time since the boot of the machine, which cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTime {
    /// Identifier of the boot.
    pub boot: String,
    /// Time since the boot, including suspend.
    pub elapsed: Duration,
}

impl BootTime {
    fn read() -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let elapsed = rustix::time::clock_gettime(ClockId::Boottime);
        Some(Self {
            boot: boot.trim().to_owned(),
            elapsed: Duration::new(elapsed.tv_sec as u64, elapsed.tv_nsec as u32),
        })
    }

    /// Time since an earlier moment of the same boot.
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        if self.boot == earlier.boot {
            self.elapsed.checked_sub(earlier.elapsed)
        } else {
            None
        }
    }
}

/// Timer with microsecond resolution; the timers of the runtime have millisecond resolution.
#[derive(Debug)]
pub struct Alarm {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// Creates an alarm of this clock; must be called within a runtime.
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
        loop {
            let left = time.since(self.clock.now());
            if left.is_zero() {
                return Ok(());
            }
            let left = self.clock.course.load().after.real(left);
            // Setting the timer clears its count of expirations, so that it needs no read.
            set_timer(&self.timer, left)?;
            self.timer.readable().await?.clear_ready();
        }
    }
}

/// Timer for a poll: its descriptor becomes readable each time it expires.
#[derive(Debug)]
pub struct PollTimer(OwnedFd);

impl PollTimer {
    /// Creates a timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(timer))
    }

    /// Lets the timer expire once, after a time; replaces the time set before.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        Ok(set_timer(&self.0, after)?)
    }
}

impl AsRawFd for PollTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn set_timer(timer: impl AsFd, after: Duration) -> rustix::io::Result<()> {
    // A time of zero would unset the timer.
    let after = after.max(Duration::from_nanos(1));
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec {
            tv_sec: after.as_secs() as i64,
            tv_nsec: after.subsec_nanos().into(),
        },
    };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

/// CPU time of this thread.
pub fn thread_cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

    fn course() -> Course {
        let stretch = Stretch {
            from: Duration::ZERO,
            shows: BEGUN,
            faster: 0,
        };
        Course {
            before: stretch,
            turn: Duration::ZERO,
            after: stretch,
        }
    }

    /// Follows a wall clock that is off by `off` nanoseconds, once per second. Returns the final
    /// difference and the largest deviation of a millisecond of this clock from a real one.
    fn follow(off: i64, seconds: u64) -> (i64, i64) {
        let mut course = course();
        let mut last = course.at(Duration::ZERO);
        let mut worst = 0;
        let wall = |moment: Duration| UnixNanos(BEGUN.plus(moment).0.saturating_add_signed(off));
        for at in 0..seconds * 1000 {
            let moment = Duration::from_millis(at);
            if at % 1000 == 0
                && let (Some(next), followed) = course.corrected(moment, wall(moment))
            {
                for probe in [0, 50, 99, 100] {
                    let probe = moment + Duration::from_millis(probe);
                    assert!(
                        followed.stepped || course.at(probe) == next.at(probe),
                        "readers of either agree"
                    );
                }
                course = next;
            }
            let now = course.at(moment);
            assert!(now >= last, "it never goes back");
            if at > 0 {
                worst = worst.max((now.since(last).as_nanos() as i64 - 1_000_000).abs());
            }
            assert!(
                course.stretch(moment).moment(now)
                    >= moment.saturating_sub(Duration::from_nanos(2))
            );
            last = now;
        }
        let end = Duration::from_millis(seconds * 1000 - 1);
        (wall(end).0.wrapping_sub(last.0) as i64, worst)
    }

    #[test]
    fn small_differences_are_made_up_smoothly_and_without_going_back() {
        for off in [300_000_000, -300_000_000, 20_000_000, -1_000_000_000] {
            let (left, worst) = follow(off, 30);
            assert!(left.abs() <= TOLERANCE_NANOS, "{off}: {left} are left");
            assert!(
                worst <= 100_000,
                "{off}: a millisecond was off by {worst} ns"
            );
        }
        assert_eq!(follow(TOLERANCE_NANOS, 5), (TOLERANCE_NANOS, 0));
    }

    #[test]
    fn a_clock_that_is_far_behind_is_set_forward_and_one_far_ahead_slows_down() {
        let year = 365 * 86_400 * 1_000_000_000;
        assert_eq!(follow(50 * year, 3).0, 0);
        let (left, worst) = follow(-3_600_000_000_000, 60);
        assert!(worst <= 100_000);
        assert!(
            (-3_595_000_000_000..-3_590_000_000_000).contains(&left),
            "a tenth slower: {left}"
        );
    }

    #[test]
    fn copies_follow_and_agree() {
        let clock = Clock::start();
        let copy = clock;
        let hour = Duration::from_secs(3600);
        let followed = clock.follow_time(clock.now().plus(hour));
        assert!(followed.stepped);
        assert!(copy.now().since(Clock::start().now()) > Duration::from_secs(3590));
    }
}
