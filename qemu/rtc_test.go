package qemu

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheRealTimeClockIsSetUpToHalfASecondAhead(t *testing.T) {
	at := func(ms int) time.Time { return time.Date(2026, 12, 31, 23, 59, 59, ms*1e6, time.UTC) }
	require.Equal(t, []uint16{0x660a, 0x5900, 0x5902, 0x2304, 0x3107, 0x1208, 0x2609, 0x260a}, rtcWrites(at(0)),
		"half a second ahead: the clock begins with half a second")
	require.Equal(t, rtcWrites(at(0)), rtcWrites(at(499)))
	require.Equal(t, []uint16{0x0000, 0x0002, 0x0004, 0x0107, 0x0108, 0x2709}, rtcWrites(at(500)),
		"half a second ahead: the clock begins with the next second")
	require.Equal(t, rtcWrites(at(500)), rtcWrites(at(999)))
}
