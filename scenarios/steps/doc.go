// Package steps is the kinds of steps that scenarios have, one file a kind: its parameters with their help, what makes
// them wrong, and what the step does. [Language] lists them all.
//
// A step acts on a [World], which belongs to one run of one scenario: the stage, and what steps have given names. Branches
// of a parallel step act on it concurrently. World.mu guards the names; it is a leaf.
package steps
