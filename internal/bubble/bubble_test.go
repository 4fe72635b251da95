package bubble

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnHourTakesNoTime(t *testing.T) {
	began := time.Now()
	var passed time.Duration
	require.NoError(t, Run(func() {
		start := time.Now()
		woken := make(chan struct{})
		go func() { defer close(woken); time.Sleep(time.Hour) }()
		Wait()
		<-woken
		passed = time.Since(start)
	}))
	require.Equal(t, time.Hour, passed)
	require.Less(t, time.Since(began), time.Hour)
}

func TestWhatCanNeverGoOnIsAnError(t *testing.T) {
	require.ErrorContains(t, Run(func() { <-make(chan int) }), "standstill")
}
