package vsockdev

// line is a first-in, first-out queue.
type line[T any] struct {
	items []T
	head  int
}

func (l *line[T]) len() int { return len(l.items) - l.head }

func (l *line[T]) push(v T) {
	if l.head > len(l.items)/2 && len(l.items) == cap(l.items) {
		n := copy(l.items, l.items[l.head:])
		clear(l.items[n:])
		l.items, l.head = l.items[:n], 0
	}
	l.items = append(l.items, v)
}

func (l *line[T]) front() *T { return &l.items[l.head] }

func (l *line[T]) pop() T {
	var zero T
	v := l.items[l.head]
	l.items[l.head] = zero
	l.head++
	return v
}
