package nedriver

// lock is a mutual exclusion that is held while the device is waited for. It is a channel and no sync.Mutex because on
// a virtual clock (testing/synctest) time goes on only while everybody waits for something that may come of it, and
// who waits for a sync.Mutex does not count as such: a slow reply would stop time for ever.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// Lock waits until nobody holds the lock, and takes it.
func (l lock) Lock() { l <- struct{}{} }

// Unlock gives it up.
func (l lock) Unlock() { <-l }
