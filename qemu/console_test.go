package qemu

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// screen is a console writer that can be held up and read at any time.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	hold chan struct{} // nil: never held
}

func (s *screen) Write(p []byte) (int, error) {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestRelayHandsOnEverything(t *testing.T) {
	s := &screen{}
	r := newRelay(s)
	var want strings.Builder
	for i := range 10000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		n, err := r.Write([]byte(line))
		require.NoError(t, err)
		require.Equal(t, len(line), n)
	}
	r.close()
	require.Equal(t, want.String(), s.String())
}

func TestRelayKeepsTheNewestForASlowWriter(t *testing.T) {
	s := &screen{hold: make(chan struct{})}
	r := newRelay(s)
	block := bytes.Repeat([]byte("x"), 1<<16)
	for range 40 {
		_, _ = r.Write(block)
	}
	_, _ = r.Write([]byte("the end"))
	close(s.hold)
	r.close()
	text := s.String()
	require.Contains(t, text, "bytes of console text dropped]")
	require.True(t, strings.HasSuffix(text, "xthe end"))
	require.LessOrEqual(t, len(text), relaySize+41*len(block)/2)
}

func TestRelayWithoutAWriter(t *testing.T) {
	r := newRelay(nil)
	_, _ = r.Write([]byte("text"))
	r.close()
}

func TestLastWords(t *testing.T) {
	const stamp = "[    2.662882] "
	tests := []struct {
		text, why       string
		panicked, spins bool
	}{
		{"hello\n", "", false, false},
		{stamp + "Kernel panic - not syncing: sysrq triggered crash\r\n", "sysrq triggered crash", true, false},
		{"<0>Kernel panic - not syncing: x\n", "x", true, false},
		{stamp + "Kernel panic - not syncing: x\n" + stamp + "---[ end Kernel panic - not syncing: x ]---", "x", true, true},
		{stamp + "Kernel panic - not syncing: x\r\n" + stamp + "Rebooting in 30 seconds..\r\n", "x", true, true},
		{stamp + "Kernel panic - not syncing: x\n" + stamp + "Rebooting in 30 seconds..", "x", true, false},
		{stamp + "Rebooting in 30 seconds..\n", "", false, false},
		{"my log says Kernel panic - not syncing: x\n", "", false, false},
		{stamp + "Kernel panic - not syncing: \x1b[31mred\n", "?[31mred", true, false},
		{stamp + "Kernel panic - not syncing: " + strings.Repeat("long ", 10000) + "\n", "", true, false},
		{stamp + "Failed to execute /init (error -2)\r\n" + stamp + "Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.\r\n",
			"No working init found: Failed to execute /init (error -2: it, or the interpreter that it names, is missing from the ramdisk)", true, false},
		{"Failed to execute /init (error -99)\nKernel panic - not syncing: No working init found.\n", "No working init found: Failed to execute /init (error -99)", true, false},
		{"Failed to execute /init (error -2)\nKernel panic - not syncing: something else\n", "something else", true, false},
		{stamp + "Kernel panic - not syncing: No working init found.  Try\n", "No working init found.  Try", true, false},
		{strings.Repeat("y", 1000) + "---[ end Kernel panic - not syncing: x ]---", "", false, false},
	}
	for _, test := range tests {
		for _, piece := range []int{1, 7, len(test.text)} {
			l := newLastWords()
			for text := []byte(test.text); len(text) > 0; text = text[min(piece, len(text)):] {
				l.read(text[:min(piece, len(text))])
			}
			why, panicked := l.panicked()
			require.Equal(t, test.panicked, panicked, test.text)
			if test.why != "" {
				require.Equal(t, test.why, why)
			}
			require.Less(t, len(why), 2*maxLine)
			select {
			case <-l.spins:
				require.True(t, test.spins, test.text)
			default:
				require.False(t, test.spins, test.text)
			}
		}
	}
}

func TestAKernelThatSaysThatItHalts(t *testing.T) {
	const stamp = "[    2.662882] "
	for text, want := range map[string]bool{
		stamp + "reboot: System halted\r\n":                                  true,
		"<0>reboot: System halted\n":                                         true,
		stamp + "reboot: Power off not available: System halted instead\r\n": true,
		stamp + "reboot: System halted":                                      false, // it may go on
		stamp + "reboot: System halted by me\n":                              false,
		"my log says reboot: System halted\n":                                false,
		stamp + "reboot: Restarting system\n":                                false,
	} {
		l := newLastWords()
		l.read([]byte(text))
		l.read([]byte(text[:len(text)-1])) // once is enough
		select {
		case <-l.halts:
			require.True(t, want, text)
		default:
			require.False(t, want, text)
		}
	}
}

func FuzzLastWords(f *testing.F) {
	f.Add([]byte("[ 1.0] Kernel panic - not syncing: x\n[ 1.1] ---[ end Kernel panic - not syncing: x ]---"), byte(3))
	f.Fuzz(func(t *testing.T, text []byte, cut byte) {
		whole, pieces := newLastWords(), newLastWords()
		whole.read(text)
		at := min(int(cut), len(text))
		pieces.read(text[:at])
		pieces.read(text[at:])
		why, panicked := whole.panicked()
		why2, panicked2 := pieces.panicked()
		require.Equal(t, why, why2)
		require.Equal(t, panicked, panicked2)
		require.LessOrEqual(t, len(pieces.line), maxLine)
	})
}

func TestTailKeepsTheEnd(t *testing.T) {
	var s tail
	for i := range 5000 {
		fmt.Fprintf(&s, "line %d\n", i)
	}
	_, _ = s.Write(bytes.Repeat([]byte("z"), 3*tailSize))
	_, _ = s.Write([]byte("\nqemu-system-x86_64: the end\n\n"))
	require.Len(t, s.buf, tailSize)
	require.Equal(t, "the end", s.complaint())
}

func TestComplaint(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"qemu-system-x86_64: -foo: invalid option\n":                                       "-foo: invalid option",
		"/usr/bin/qemu-system-x86_64: error\nqemu-system-x86_64: warning: something\n":     "error",
		"qemu-system-x86_64: warning: something\n":                                         "warning: something",
		"sh: 1: exec: x: not found":                                                        "sh: 1: exec: x: not found",
		"KVM internal error. Suberror: 1\nemulation failure\nRAX=0 RBX=0\nCode=00 00 00\n": "KVM internal error. Suberror: 1, emulation failure",
		"error: kvm run failed Bad address\nRAX=0\nCode=00\n":                              "error: kvm run failed Bad address",
		"bad\xff\x1b[2J\n": "bad??[2J",
	} {
		var s tail
		_, _ = s.Write([]byte(text))
		require.Equal(t, want, s.complaint())
	}
}

func TestTheKindOfAKVMFailureIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"KVM internal error. Suberror: 1\nextra data[0]: 0x1\nextra data[1]: 0x2\nemulation failure\nRAX=0 RBX=1\n": "KVM internal error. Suberror: 1, emulation failure",
		"KVM internal error. Suberror: 1\nemulation failure\nRAX=0\n":                                               "KVM internal error. Suberror: 1, emulation failure",
		"KVM internal error. Suberror: 3\nextra data[0]: 0x1\nRAX=0 RBX=1\nlater\n":                                 "KVM internal error. Suberror: 3",
		"KVM internal error. Suberror: 1":                                                                           "KVM internal error. Suberror: 1",
	} {
		var stderr tail
		_, _ = stderr.Write([]byte(text))
		require.Equal(t, want, stderr.complaint())
	}
}
