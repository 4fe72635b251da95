package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

// Action is a step that can be taken.
type Action interface {
	scenarios.Action
	// Do takes the step in a branch. The error is a [Mismatch] if something differs from what the file says.
	Do(ctx context.Context, w *World, b Branch) error
}

// Language is the language of scenario files, with every kind of step that this package has.
var Language = scenarios.Language{
	runStep, createStep, addMemoryStep, addCPUStep, imageInfoStep, startStep, heartbeatStep,
	buildStep, ioctlStep, pciStep,
	dialStep, listenStep, acceptStep, sendStep, expectStep, closeStep, callStep, attestStep, consoleStep,
	pollStep, slotStep, endedStep, terminateStep, signalStep, exitProcessStep, cpuPoolStep, restartStep,
	faultStep, seenStep, execStep, sleepStep,
}

// kind makes a kind of step whose action is a *T.
func kind[T any, A interface {
	*T
	Action
}](key, doc string) scenarios.StepKind {
	return scenarios.StepKind{Key: key, Doc: doc, New: func() scenarios.Action { return A(new(T)) }}
}

// unlimited makes a kind whose steps take as long as their parameters say.
func unlimited(k scenarios.StepKind) scenarios.StepKind {
	k.Unlimited = true
	return k
}
