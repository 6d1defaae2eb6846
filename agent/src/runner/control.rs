//! Where a running attempt may rest, and what makes it go on.

use tokio::sync::watch;

use crate::permit::Permits;

/// What the attempt was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet: a process before this one was, and the control plane has not compared lists since. It rests where
    /// it may.
    Unordered,
    /// Go on while there is a permit.
    Go,
    /// Rest at the next safe point.
    Hold,
    /// End at the next safe point.
    Stop,
    /// The process ends: leave at the next safe point, for the next process to go on.
    Close,
}

/// How a rest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Go on. `rested` says that time has passed.
    Go { rested: bool },
    /// End here.
    Stop,
    /// Leave here.
    Close,
}

pub(super) struct Control {
    told: watch::Receiver<Told>,
    permits: Permits,
}

impl Control {
    pub(super) fn new(told: watch::Receiver<Told>, permits: Permits) -> Self {
        Self { told, permits }
    }

    /// At a safe point: returns when the attempt may go on or must end. `parked` hears when it begins and ends to rest.
    pub(super) async fn rest(&mut self, parked: impl Fn(bool)) -> Rest {
        let (mut rested, mut said) = (false, false);
        loop {
            let told = *self.told.borrow_and_update();
            match told {
                Told::Stop => return Rest::Stop,
                Told::Close => return Rest::Close,
                Told::Go if self.permits.holds() => {
                    if said {
                        parked(false);
                    }
                    return Rest::Go { rested };
                }
                Told::Go | Told::Hold | Told::Unordered => rested = true,
            }
            if told != Told::Unordered && !said {
                parked(true);
                said = true;
            }
            tokio::select! {
                changed = self.told.changed() => if changed.is_err() { return Rest::Close },
                () = self.permits.held(), if told == Told::Go => {}
            }
        }
    }

    /// Returns when an effect that belongs to no step's turn may be made: once something is wanted of the attempt, and
    /// with a permit. False where the process ends first.
    pub(super) async fn ordered(&mut self) -> bool {
        loop {
            let told = *self.told.borrow_and_update();
            let wanted = match told {
                Told::Close => return false,
                Told::Unordered => false,
                Told::Go | Told::Hold | Told::Stop => true,
            };
            if wanted && self.permits.holds() {
                return true;
            }
            tokio::select! {
                changed = self.told.changed() => if changed.is_err() { return false },
                () = self.permits.held(), if wanted => {}
            }
        }
    }

    /// Returns when a reading should be left, because the target may rest during it and was told to.
    pub(super) async fn interrupted(&mut self) {
        let ends = |told: &Told| match told {
            Told::Hold | Told::Stop | Told::Close => true,
            Told::Go | Told::Unordered => false,
        };
        // A desk that is gone means that the process ends.
        let _ = self.told.wait_for(ends).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::time::Duration;

    struct Desk {
        told: watch::Sender<Told>,
        permits: Permits,
        clock: ManualClock,
        parked: Arc<Mutex<Vec<bool>>>,
    }

    fn desk(told: Told) -> (Desk, Control) {
        let clock = ManualClock::new(Duration::from_secs(100), 0);
        let permits = Permits::new(Arc::new(clock.clone()));
        let (told, receiver) = watch::channel(told);
        let control = Control::new(receiver, permits.clone());
        let desk = Desk {
            told,
            permits,
            clock,
            parked: Arc::default(),
        };
        (desk, control)
    }

    fn rest(desk: &Desk, mut control: Control) -> tokio::task::JoinHandle<(Rest, Control)> {
        let parked = desk.parked.clone();
        tokio::spawn(async move {
            let rest = control
                .rest(|rests| parked.lock().unwrap().push(rests))
                .await;
            (rest, control)
        })
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn without_a_permit_it_waits_and_says_so_once() {
        let (desk, control) = desk(Told::Go);
        let resting = rest(&desk, control);
        settle().await;
        assert!(!resting.is_finished());
        desk.permits
            .grant(desk.clock.boot_now(), Duration::from_secs(30));
        assert_eq!(resting.await.unwrap().0, Rest::Go { rested: true });
        assert_eq!(*desk.parked.lock().unwrap(), [true, false]);
    }

    #[tokio::test]
    async fn a_permit_alone_moves_nothing_that_was_not_ordered() {
        let (desk, control) = desk(Told::Unordered);
        desk.permits
            .grant(desk.clock.boot_now(), Duration::from_secs(30));
        let resting = rest(&desk, control);
        settle().await;
        assert!(!resting.is_finished());
        assert!(desk.parked.lock().unwrap().is_empty());
        desk.told.send_replace(Told::Go);
        assert_eq!(resting.await.unwrap().0, Rest::Go { rested: true });
    }

    #[tokio::test]
    async fn an_ended_permit_rests_and_a_stop_ends_also_without_one() {
        let (desk, control) = desk(Told::Go);
        desk.permits
            .grant(desk.clock.boot_now(), Duration::from_secs(30));
        let (first, control) = rest(&desk, control).await.unwrap();
        assert_eq!(first, Rest::Go { rested: false });
        desk.clock.advance(Duration::from_secs(30));
        let resting = rest(&desk, control);
        settle().await;
        assert!(!resting.is_finished());
        desk.told.send_replace(Told::Stop);
        assert_eq!(resting.await.unwrap().0, Rest::Stop);
    }
}
