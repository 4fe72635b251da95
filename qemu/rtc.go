package qemu

import (
	"context"
	"fmt"
	"time"
)

// Registers of the MC146818 real-time clock, and the ports that they are written by, index and value in one word.
const (
	rtcPorts   = 0x70
	rtcSeconds = 0x00
	rtcMinutes = 0x02
	rtcHours   = 0x04
	rtcDay     = 0x07
	rtcMonth   = 0x08
	rtcYear    = 0x09
	rtcA       = 0x0a

	rtcHold = 0x66 // in register A: the divider is held in reset, so that the clock stands
	rtcRun  = 0x26 // in register A: 32.768 kHz, the usual rate
)

// rtcWrites are the writes that set the real-time clock so that it is ahead of now, by up to half a second. A kernel
// reads whole seconds, and so half a second less than there is, on average; some add it, some do not. As QEMU starts it,
// the clock lags behind the host by up to one second more.
//
// The clock begins a second when a register is written while it runs, and half a second when the divider is let go
// (QEMU, hw/rtc/mc146818rtc.c, cmos_ioport_write).
func rtcWrites(now time.Time) []uint16 {
	date := now.UTC().Truncate(time.Second)
	half := now.Sub(date) < time.Second/2
	if !half {
		date = date.Add(time.Second)
	}
	write := func(register, value int) uint16 { return uint16(value)<<8 | uint16(register) }
	bcd := func(register, value int) uint16 { return write(register, value/10<<4|value%10) }
	// From the seconds up, so that no step on the way from one month to the next is a day that the month does not have.
	writes := []uint16{
		bcd(rtcSeconds, date.Second()), bcd(rtcMinutes, date.Minute()), bcd(rtcHours, date.Hour()),
		bcd(rtcDay, date.Day()), bcd(rtcMonth, int(date.Month())), bcd(rtcYear, date.Year()%100),
	}
	if half {
		writes = append([]uint16{write(rtcA, rtcHold)}, append(writes, write(rtcA, rtcRun))...)
	}
	return writes
}

// setClock sets the real-time clock of a guest that has not run yet.
func (m *monitor) setClock(ctx context.Context, now time.Time) error {
	for _, w := range rtcWrites(now) {
		if err := m.human(ctx, fmt.Sprintf("o/h %#x %#x", rtcPorts, w)); err != nil {
			return err
		}
	}
	return nil
}
