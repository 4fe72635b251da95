package vfiouser

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// As QEMU does: vectors are armed alone and together, again and again; the latest
// eventfd counts, and nothing triggered between is lost.
func TestLatestEventfdCounts(t *testing.T) {
	f, c := dial(t)
	a, b, old := eventfd(t), eventfd(t), eventfd(t)

	require.NoError(t, c.UnsetIRQs(IRQMSIX, 0, 1))
	require.NoError(t, c.DisableIRQs(IRQMSIX))
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, old))
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, a))
	require.NoError(t, c.SetIRQs(IRQMSIX, 1, old))
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, a, b))
	f.irqs.Trigger(0)
	f.irqs.Trigger(1)
	f.irqs.Trigger(1)
	f.irqs.Trigger(2)
	f.irqs.Trigger(-1)
	require.EqualValues(t, 1, signals(t, a))
	require.EqualValues(t, 2, signals(t, b))
	require.Zero(t, signals(t, old))

	require.NoError(t, c.UnsetIRQs(IRQMSIX, 1, 1))
	f.irqs.Trigger(1)
	require.Zero(t, signals(t, b))
	require.True(t, f.irqs.Pending(1))
	require.NoError(t, c.SetIRQs(IRQMSIX, 1, b))
	require.EqualValues(t, 1, signals(t, b))
	require.False(t, f.irqs.Pending(1))

	require.NoError(t, c.DisableIRQs(0), "INTx has no vectors to disable")
	f.irqs.Trigger(0)
	require.EqualValues(t, 1, signals(t, a))
	require.NoError(t, c.DisableIRQs(IRQMSIX))
	f.irqs.Trigger(0)
	require.Zero(t, signals(t, a))
}

func TestMaskedVectorsArePending(t *testing.T) {
	f, c := dial(t)
	a, b := eventfd(t), eventfd(t)
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, a, b))
	require.NoError(t, c.MaskIRQs(IRQMSIX, 0, 2))
	f.irqs.Trigger(0)
	f.irqs.Trigger(1)
	require.True(t, f.irqs.Pending(0))
	require.Zero(t, signals(t, a))
	require.NoError(t, c.UnmaskIRQs(IRQMSIX, 0, 1))
	require.EqualValues(t, 1, signals(t, a))
	f.irqs.ClearPending()
	require.NoError(t, c.UnmaskIRQs(IRQMSIX, 1, 1))
	require.Zero(t, signals(t, b))
}

func TestClientTriggersVectors(t *testing.T) {
	_, c := dial(t)
	a, b := eventfd(t), eventfd(t)
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, a, b))
	require.NoError(t, c.TriggerIRQs(IRQMSIX, 0, 2))
	require.EqualValues(t, 1, signals(t, a))
	require.EqualValues(t, 1, signals(t, b))

	c.mu.Lock()
	_, err := c.call(CmdDeviceSetIRQs, nil, u32s(irqSetSize+2, irqDataBool|irqActionTrigger, IRQMSIX, 0, 2), []byte{0, 1})
	c.mu.Unlock()
	require.NoError(t, err)
	require.Zero(t, signals(t, a))
	require.EqualValues(t, 1, signals(t, b))
}

// A full eventfd must not hold the device up.
func TestFullEventfdDoesNotBlock(t *testing.T) {
	f, c := dial(t)
	a := eventfd(t)
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, a))
	_, err := unix.Write(a, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	require.NoError(t, err)
	f.irqs.Trigger(0)
	require.Equal(t, ^uint64(1), signals(t, a))
}
