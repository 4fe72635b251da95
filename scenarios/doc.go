// Package scenarios reads scenario files: YAML that sets a stage, does things, breaks things, and says what must be
// seen. The types of this package are the language: the parser, which is strict, and the JSON Schema are both made of
// them. Package run plays scenarios.
package scenarios
