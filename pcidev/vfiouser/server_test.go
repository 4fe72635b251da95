package vfiouser

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestVersionIsAgreedOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		payload []byte
		minor   uint16
		caps    string
	}{
		"as QEMU asks": {
			join([]byte{0, 0, 0, 0}, []byte(`{"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "migration": {"pgsize": 4096, "max_bitmap_size": 262144}, "write_multiple": true}}`+"\x00")),
			0, `{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":65536,"max_dma_maps":16384}}`,
		},
		"newer minor":         {[]byte{0, 0, 9, 0}, 1, `{"capabilities":{}}`},
		"no capabilities":     {join([]byte{0, 0, 1, 0}, []byte("{}\x00")), 1, `{"capabilities":{}}`},
		"only one capability": {join([]byte{0, 0, 1, 0}, []byte(`{"capabilities":{"max_msg_fds":1}}`+"\x00")), 1, `{"capabilities":{"max_msg_fds":16}}`},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := rawDial(t)
			h, p := c.ask(message(CmdVersion, 0, tc.payload))
			require.Equal(t, header{id: 0x1234, cmd: CmdVersion, size: uint32(headerSize + len(p)), flags: flagReply}, h)
			require.EqualValues(t, versionMajor, le.Uint16(p))
			require.Equal(t, tc.minor, le.Uint16(p[2:]))
			require.Equal(t, tc.caps+"\x00", string(p[4:]))

			h, _ = c.ask(message(CmdVersion, 0, tc.payload))
			require.EqualValues(t, unix.EPROTO, h.errno)
		})
	}
}

func TestVersionThatCannotBeAgreedEndsTheConnection(t *testing.T) {
	for name, payload := range map[string][]byte{
		"other major":        {1, 0, 0, 0},
		"too short":          {0, 0, 0},
		"text not ended":     {0, 0, 0, 0, '{', '}'},
		"text is not JSON":   {0, 0, 0, 0, '{', 0},
		"capability of text": []byte("\x00\x00\x00\x00{\"capabilities\":{\"max_msg_fds\":\"x\"}}\x00"),
		"text too long":      make([]byte, versionSize+maxVersionData+1),
	} {
		t.Run(name, func(t *testing.T) {
			f, c := rawDial(t)
			h, p := c.ask(message(CmdVersion, 0, payload))
			require.EqualValues(t, flagReply|flagError, h.flags)
			require.NotZero(t, h.errno)
			require.Empty(t, p)
			require.ErrorIs(t, f.ended(t), errVersion)
		})
	}
}

func TestNothingIsDoneBeforeTheVersion(t *testing.T) {
	f, c := rawDial(t)
	h, _ := c.ask(message(CmdDeviceReset, 0, nil))
	require.EqualValues(t, unix.EPROTO, h.errno)
	require.Zero(t, f.device.resetCount())
	c.agree()
}

func TestBadMessagesGetAnErrorReply(t *testing.T) {
	dmaMap := func(argsz, flags uint32, off, addr, size uint64) []byte {
		return join(u32s(argsz, flags), u64s(off, addr, size))
	}
	access := func(off uint64, region, count uint32, data ...byte) []byte {
		return join(u64s(off), u32s(region, count), data)
	}
	irqs := func(flags, index, start, count uint32, data ...byte) []byte {
		return join(u32s(irqSetSize, flags, index, start, count), data)
	}
	const (
		arm  = irqDataEventfd | irqActionTrigger
		none = irqDataNone | irqActionTrigger
		flag = irqDataBool | irqActionTrigger
	)
	for name, tc := range map[string]struct {
		cmd     Command
		flags   uint32
		payload []byte
		fds     int
		errno   unix.Errno
	}{
		"command 0":                    {cmd: 0, errno: unix.ENOTSUP},
		"unknown command":              {cmd: 0xffff, errno: unix.ENOTSUP},
		"server's own command":         {cmd: CmdDMARead, payload: make([]byte, 16), errno: unix.ENOTSUP},
		"optional command":             {cmd: CmdRegionWriteMulti, payload: make([]byte, 64), errno: unix.ENOTSUP},
		"reply to nothing":             {cmd: CmdDeviceReset, flags: flagReply, errno: unix.EINVAL},
		"unknown message type":         {cmd: CmdDeviceReset, flags: 7, errno: unix.EINVAL},
		"reset with payload":           {cmd: CmdDeviceReset, payload: []byte{0}, errno: unix.EINVAL},
		"reset with descriptor":        {cmd: CmdDeviceReset, fds: 1, errno: unix.EINVAL},
		"unknown with descriptors":     {cmd: 99, fds: 3, errno: unix.ENOTSUP},
		"too many descriptors":         {cmd: CmdDeviceReset, fds: MaxMessageFDs + 1, errno: unix.E2BIG},
		"info short":                   {cmd: CmdDeviceGetInfo, payload: make([]byte, 15), errno: unix.EINVAL},
		"info argsz":                   {cmd: CmdDeviceGetInfo, payload: u32s(15, 0, 0, 0), errno: unix.EINVAL},
		"region info argsz":            {cmd: CmdDeviceGetRegionInfo, payload: u32s(31, 0, 0, 0, 0, 0, 0, 0), errno: unix.EINVAL},
		"region info index":            {cmd: CmdDeviceGetRegionInfo, payload: u32s(32, 0, NumRegions, 0, 0, 0, 0, 0), errno: unix.EINVAL},
		"irq info index":               {cmd: CmdDeviceGetIRQInfo, payload: u32s(16, 0, NumIRQs, 0), errno: unix.EINVAL},
		"irq info of errors":           {cmd: CmdDeviceGetIRQInfo, payload: u32s(16, 0, IRQErr, 0), errno: unix.EINVAL},
		"map without size":             {cmd: CmdDMAMap, payload: dmaMap(32, DMARead, 0, 0, 0), errno: unix.EINVAL},
		"map without flags":            {cmd: CmdDMAMap, payload: dmaMap(32, 0, 0, 0, 4096), errno: unix.EINVAL},
		"map with unknown flags":       {cmd: CmdDMAMap, payload: dmaMap(32, DMARead|8, 0, 0, 4096), errno: unix.EINVAL},
		"map past the address space":   {cmd: CmdDMAMap, payload: dmaMap(32, DMARead, 0, math.MaxUint64-4094, 4096), errno: unix.EINVAL},
		"map past the file's limit":    {cmd: CmdDMAMap, payload: dmaMap(32, DMARead, math.MaxInt64, 0, 4096), errno: unix.EINVAL},
		"map argsz":                    {cmd: CmdDMAMap, payload: dmaMap(31, DMARead, 0, 0, 4096), errno: unix.EINVAL},
		"map with two descriptors":     {cmd: CmdDMAMap, payload: dmaMap(32, DMARead, 0, 0, 4096), fds: 2, errno: unix.EINVAL},
		"map of no regular file":       {cmd: CmdDMAMap, payload: dmaMap(32, DMARead, 0, 0, 4096), fds: 1, errno: unix.EINVAL},
		"unmap of nothing":             {cmd: CmdDMAUnmap, payload: join(u32s(24, 0), u64s(0, 4096)), errno: unix.ENOENT},
		"unmap with unknown flags":     {cmd: CmdDMAUnmap, payload: join(u32s(24, 1), u64s(0, 4096)), errno: unix.EINVAL},
		"unmap all with a range":       {cmd: CmdDMAUnmap, payload: join(u32s(24, 2), u64s(0, 4096)), errno: unix.EINVAL},
		"read of no bytes":             {cmd: CmdRegionRead, payload: access(0, 0, 0), errno: unix.EINVAL},
		"read past the region":         {cmd: CmdRegionRead, payload: access(4093, 0, 4), errno: unix.EINVAL},
		"read far past the region":     {cmd: CmdRegionRead, payload: access(math.MaxUint64, 0, 4), errno: unix.EINVAL},
		"read of an absent region":     {cmd: CmdRegionRead, payload: access(0, 5, 1), errno: unix.EINVAL},
		"read of no region":            {cmd: CmdRegionRead, payload: access(0, 9, 1), errno: unix.EINVAL},
		"read too long":                {cmd: CmdRegionRead, payload: access(0, 0, math.MaxUint32), errno: unix.EINVAL},
		"read with data":               {cmd: CmdRegionRead, payload: access(0, 0, 1, 1), errno: unix.EINVAL},
		"write with too little data":   {cmd: CmdRegionWrite, payload: access(0, 0, 4, 1, 2, 3), errno: unix.EINVAL},
		"write with too much data":     {cmd: CmdRegionWrite, payload: access(0, 0, 1, 1, 2), errno: unix.EINVAL},
		"write past the region":        {cmd: CmdRegionWrite, payload: access(4095, 0, 2, 1, 2), errno: unix.EINVAL},
		"write of a read-only region":  {cmd: CmdRegionWrite, payload: access(0, 1, 1, 1), errno: unix.EPERM},
		"irqs short":                   {cmd: CmdDeviceSetIRQs, payload: make([]byte, 19), errno: unix.EINVAL},
		"irqs argsz":                   {cmd: CmdDeviceSetIRQs, payload: u32s(19, none, IRQMSIX, 0, 1), errno: unix.EINVAL},
		"irqs without action":          {cmd: CmdDeviceSetIRQs, payload: irqs(irqDataNone, IRQMSIX, 0, 1), errno: unix.EINVAL},
		"irqs without data":            {cmd: CmdDeviceSetIRQs, payload: irqs(irqActionTrigger, IRQMSIX, 0, 1), errno: unix.EINVAL},
		"irqs with two actions":        {cmd: CmdDeviceSetIRQs, payload: irqs(none|irqActionMask, IRQMSIX, 0, 1), errno: unix.EINVAL},
		"irqs with two kinds of data":  {cmd: CmdDeviceSetIRQs, payload: irqs(none|irqDataBool, IRQMSIX, 0, 1), errno: unix.EINVAL},
		"irqs with unknown flags":      {cmd: CmdDeviceSetIRQs, payload: irqs(none|1<<6, IRQMSIX, 0, 1), errno: unix.EINVAL},
		"irqs of no index":             {cmd: CmdDeviceSetIRQs, payload: irqs(none, NumIRQs, 0, 0), errno: unix.EINVAL},
		"irqs of an absent vector":     {cmd: CmdDeviceSetIRQs, payload: irqs(none, IRQMSIX, 1, 2), errno: unix.EINVAL},
		"irqs that wrap":               {cmd: CmdDeviceSetIRQs, payload: irqs(none, IRQMSIX, 2, math.MaxUint32), errno: unix.EINVAL},
		"irqs of INTx":                 {cmd: CmdDeviceSetIRQs, payload: irqs(none, 0, 0, 1), errno: unix.EINVAL},
		"irqs disable from a start":    {cmd: CmdDeviceSetIRQs, payload: irqs(none, IRQMSIX, 1, 0), errno: unix.EINVAL},
		"irqs none with data":          {cmd: CmdDeviceSetIRQs, payload: irqs(none, IRQMSIX, 0, 1, 1), errno: unix.EINVAL},
		"irqs booleans missing":        {cmd: CmdDeviceSetIRQs, payload: irqs(flag, IRQMSIX, 0, 2, 1), errno: unix.EINVAL},
		"irqs booleans and descriptor": {cmd: CmdDeviceSetIRQs, payload: irqs(flag, IRQMSIX, 0, 1, 1), fds: 1, errno: unix.EINVAL},
		"irqs descriptors missing":     {cmd: CmdDeviceSetIRQs, payload: irqs(arm, IRQMSIX, 0, 2), fds: 1, errno: unix.EINVAL},
		"irqs too many descriptors":    {cmd: CmdDeviceSetIRQs, payload: irqs(arm, IRQMSIX, 0, 1), fds: 2, errno: unix.EINVAL},
		"irqs eventfd for mask":        {cmd: CmdDeviceSetIRQs, payload: irqs(irqDataEventfd|irqActionMask, IRQMSIX, 0, 1), fds: 1, errno: unix.ENOTSUP},
		"irqs blocking descriptor":     {cmd: CmdDeviceSetIRQs, payload: irqs(arm, IRQMSIX, 0, 1), fds: 1, errno: unix.EINVAL},
		"too long":                     {cmd: CmdRegionWrite, payload: make([]byte, maxMessage), errno: unix.EMSGSIZE},
		"too long with descriptors":    {cmd: CmdRegionWrite, payload: make([]byte, 1<<20), fds: 4, errno: unix.EMSGSIZE},
	} {
		t.Run(name, func(t *testing.T) {
			// A pipe is no memory, and its end blocks.
			var pipe [2]int
			require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
			t.Cleanup(func() { unix.Close(pipe[0]); unix.Close(pipe[1]) })
			var fds []int
			for range tc.fds {
				fds = append(fds, pipe[1])
			}
			f, c := rawDial(t)
			c.agree()
			h, p := c.ask(message(tc.cmd, tc.flags, tc.payload), fds...)
			require.Equal(t, header{id: 0x1234, cmd: tc.cmd, size: headerSize, flags: flagReply | flagError, errno: uint32(tc.errno)}, h)
			require.Empty(t, p)

			// A posted one gets no reply, and the connection lives.
			c.send(message(tc.cmd, tc.flags|flagNoReply, tc.payload), fds...)
			h, _ = c.ask(message(CmdDeviceReset, 0, nil))
			require.Equal(t, header{id: 0x1234, cmd: CmdDeviceReset, size: headerSize, flags: flagReply}, h)
			require.Equal(t, 1, f.device.resetCount())
		})
	}
}

func TestLostFramingEndsTheConnection(t *testing.T) {
	t.Run("size below the header's", func(t *testing.T) {
		f, c := rawDial(t)
		c.agree()
		b := message(CmdDeviceReset, 0, nil)
		le.PutUint32(b[4:], headerSize-1)
		c.send(b, eventfd(t))
		require.Error(t, f.ended(t))
	})
	t.Run("client dies in a message", func(t *testing.T) {
		f, c := rawDial(t)
		c.agree()
		c.send(message(CmdRegionWrite, 0, make([]byte, 100))[:50], eventfd(t))
		c.st.shutdown()
		require.ErrorIs(t, f.ended(t), io.ErrUnexpectedEOF)
	})
	t.Run("client dies in an endless message", func(t *testing.T) {
		f, c := rawDial(t)
		c.agree()
		b := message(CmdRegionWrite, 0, make([]byte, 100))
		le.PutUint32(b[4:], math.MaxUint32)
		c.send(b, eventfd(t))
		c.st.shutdown()
		require.ErrorIs(t, f.ended(t), io.ErrUnexpectedEOF)
	})
	t.Run("client just goes", func(t *testing.T) {
		f, c := rawDial(t)
		c.agree()
		c.st.shutdown()
		require.NoError(t, f.ended(t))
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	f, c := rawDial(t)
	c.agree()
	f.cancel()
	require.ErrorIs(t, f.ended(t), context.Canceled)
}

// Messages may come in pieces and in heaps; descriptors stay with theirs.
func TestMessagesInPiecesAndHeaps(t *testing.T) {
	write := func(off uint64, b ...byte) []byte {
		return message(CmdRegionWrite, flagNoReply, join(u64s(off), u32s(0, uint32(len(b))), b))
	}
	mapping := func(addr uint64) []byte {
		return message(CmdDMAMap, flagNoReply, join(u32s(dmaMapSize, DMARead|DMAWrite), u64s(0, addr, 4096)))
	}
	f, c := rawDial(t)
	c.agree()
	for _, b := range join(write(0, 1, 2, 3), message(CmdDeviceReset, 0, nil)) {
		c.send([]byte{b})
	}
	c.reply()
	require.Equal(t, []byte{1, 2, 3}, f.device.bytes(0, 3))

	c.send(join(write(4, 4), write(5, 5), write(6, 6)))
	c.send(mapping(0x1000), memfd(t, 4096))
	c.send(mapping(0x2000)[:20], memfd(t, 4096))
	c.send(mapping(0x2000)[20:])
	c.send(join(write(7, 7), mapping(0x3000)), memfd(t, 4096))
	c.ask(message(CmdDeviceReset, 0, nil))
	require.Equal(t, []byte{4, 5, 6, 7}, f.device.bytes(4, 4))
	require.True(t, f.dma.Mapped(0x1000, 3*4096))
}

func TestDescriptorsOfAMessageInPiecesAreBounded(t *testing.T) {
	f, c := rawDial(t)
	c.agree()
	fds := make([]int, 10)
	for i := range fds {
		fds[i] = eventfd(t)
	}
	m := message(CmdRegionWrite, 0, join(u64s(0), u32s(0, 48), make([]byte, 48)))
	for len(m) > 0 {
		c.send(m[:8], fds...)
		m = m[8:]
	}
	h, _ := c.reply()
	require.EqualValues(t, unix.E2BIG, h.errno)
	c.ask(message(CmdDeviceReset, 0, nil))
	require.Equal(t, 1, f.device.resetCount())
}

func TestDeviceErrorsBecomeErrno(t *testing.T) {
	f, c := dial(t)
	f.device.refuse(unix.EBUSY)
	require.ErrorIs(t, c.Reset(), unix.EBUSY)
	require.ErrorIs(t, c.RegionRead(0, 0, make([]byte, 4)), unix.EBUSY)
	f.device.refuse(errors.New("anything"))
	require.ErrorIs(t, c.RegionWrite(0, 0, make([]byte, 4)), unix.EIO)
}
