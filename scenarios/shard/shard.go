// Package shard splits a list of scenarios among machines, and puts together again what they report.
//
// All of it is plain values: there are no goroutines and no locks.
package shard

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxCount is how many shards there may be.
const MaxCount = 10000

// Shard is one of Count parts of a list of scenarios; Index counts from 1. The zero value is no shard.
type Shard struct{ Index, Count int }

// String is i/n, as Parse reads it.
func (s Shard) String() string { return fmt.Sprintf("%d/%d", s.Index, s.Count) }

// Parse reads i/n: two decimal numbers with neither signs, blanks nor leading zeros, where 1 <= i <= n <= MaxCount.
func Parse(text string) (Shard, error) {
	i, n, ok := strings.Cut(text, "/")
	index, errIndex := number(i)
	count, errCount := number(n)
	if !ok || errIndex != nil || errCount != nil {
		return Shard{}, fmt.Errorf("no shard %.40q: write it as i/n, as in 1/4", text)
	}
	s := Shard{index, count}
	if err := s.check(); err != nil {
		return Shard{}, err
	}
	return s, nil
}

func (s Shard) check() error {
	switch {
	case s.Count < 1 || s.Count > MaxCount:
		return fmt.Errorf("no shard %v: there can be 1 to %d", s, MaxCount)
	case s.Index < 1 || s.Index > s.Count:
		return fmt.Errorf("no shard %v: the first is 1/%d, the last %[2]d/%[2]d", s, s.Count)
	}
	return nil
}

// number reads a number as String writes it, and nothing else.
func number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || strconv.Itoa(n) != text {
		return 0, errors.New("not a decimal number")
	}
	return n, nil
}

// Select returns the shard's part of a list, in the list's order: the shards take turns, each an element. So each element is
// in exactly one shard, the shards' sizes differ by one at most, and neighbours, which are often alike slow, are parted.
// It depends on nothing but positions. A shard may be empty.
func Select[T any](list []T, s Shard) (part []T) {
	for i := s.Index - 1; i >= 0 && i < len(list); i += s.Count {
		part = append(part, list[i])
	}
	return part
}

// size is how many elements Select takes out of so many.
func (s Shard) size(all int) int { return (all - s.Index + s.Count) / s.Count }
