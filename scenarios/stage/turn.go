package stage

import (
	"math/rand/v2"
	"slices"

	"github.com/nesim/nesim/internal/bubble"
)

// turns lets the branches of a scenario act one at a time, so that the same seed gives the same run however Go's
// scheduler is minded.
type turns struct {
	asked chan turn
	ended chan struct{} // closed when the scheduler has ended
}

type turn struct {
	branch int
	grant  chan struct{}
}

// Turn waits until everything on the stage has come to rest, and then for the caller's turn: branches take theirs in an
// order that the seed gives. Each branch of a scenario calls it before each of its steps, with a number of its own. On
// the QEMU engine, where nothing ever rests, it returns at once.
func (s *Stage) Turn(branch int) {
	if s.cfg.Engine != Scripted {
		return
	}
	s.begin.Do(func() {
		s.turns = turns{asked: make(chan turn), ended: make(chan struct{})}
		go s.turns.run(rand.New(rand.NewPCG(s.cfg.Seed, 2)), s.gone)
	})
	t := turn{branch, make(chan struct{})}
	select {
	case s.turns.asked <- t:
		<-t.grant
	case <-s.gone:
	}
}

// Alone waits for the caller's turn and makes a call of the driver, with no other branch in one: who comes first to the
// driver's locks would be for Go's scheduler to say. (The device does one command at a time in any case.)
func (s *Stage) Alone(branch int, call func()) {
	s.Turn(branch)
	if s.cfg.Engine == Scripted {
		s.alone <- struct{}{}
		defer func() { <-s.alone }()
	}
	call()
}

// run gives turns until the stage ends.
func (t *turns) run(random *rand.Rand, gone <-chan struct{}) {
	defer close(t.ended)
	var waiting []turn
	for {
		if len(waiting) == 0 {
			select {
			case next := <-t.asked:
				waiting = append(waiting, next)
			case <-gone:
				return
			}
		}
		bubble.Wait()
		waiting = t.more(waiting)
		i := 0
		if len(waiting) > 1 {
			slices.SortFunc(waiting, func(a, b turn) int { return a.branch - b.branch })
			i = random.IntN(len(waiting))
		}
		close(waiting[i].grant)
		waiting = slices.Delete(waiting, i, i+1)
	}
}

// more takes who has asked meanwhile.
func (t *turns) more(waiting []turn) []turn {
	for {
		select {
		case next := <-t.asked:
			waiting = append(waiting, next)
		default:
			return waiting
		}
	}
}
