// Package scenarios reads scenario files: YAML that shapes an instance, does things with enclaves, breaks things, and
// says what must be seen. It is the language alone: it knows the shape of a scenario and how to read, check and describe
// it. What steps there are is a [Language], made by package steps; package run runs scenarios.
package scenarios
