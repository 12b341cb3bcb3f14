//! Mutexes in a process in which one thread may die and the others go on.
//!
//! A thread that panics with a lock in its hand poisons it. Poison is ignored here: what our locks guard is changed in
//! one step, so a thread that died left nothing half done that another one would miss.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Takes the lock. Blocks until the thread that has it lets go. There is no bound for that, so every user of the lock
/// must hold it for moments only.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the lock, unless some thread has it right now. Never blocks.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_thread_died_with_can_be_taken() {
        let mutex = Mutex::new(1);
        let died = std::thread::scope(|scope| {
            let dies = scope.spawn(|| {
                let mut held = lock(&mutex);
                *held = 2;
                panic!("with the lock in its hand");
            });
            dies.join()
        });
        assert!(died.is_err() && mutex.is_poisoned());
        assert_eq!(try_lock(&mutex).map(|held| *held), Some(2));
        assert_eq!(*lock(&mutex), 2);
    }

    #[test]
    fn a_lock_that_is_taken_is_not_waited_for() {
        let mutex = Mutex::new(());
        let held = lock(&mutex);
        assert!(try_lock(&mutex).is_none());
        drop(held);
        assert!(try_lock(&mutex).is_some());
    }
}
