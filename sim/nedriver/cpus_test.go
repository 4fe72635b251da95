package nedriver

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
)

func parsed(set []bool) []int {
	cpus := []int{}
	for cpu, in := range set {
		if in {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

func TestCPUListsOfTheKernelsFormat(t *testing.T) {
	for list, want := range map[string][]int{
		"":              {},
		"\n":            {},
		"2":             {2},
		"2-5,7":         {2, 3, 4, 5, 7},
		"2-5,7\n":       {2, 3, 4, 5, 7},
		"7,2, 3":        {2, 3, 7},
		"1 2\t3":        {1, 2, 3},
		",,1,,":         {1},
		"1,1-2":         {1, 2},
		"N":             {15},
		"14-N":          {14, 15},
		"0-7:2/4":       {0, 1, 4, 5},
		"all:1/8":       {0, 8},
		"ALL":           {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		"1\nrest":       {1},
		"3\x00anything": {3},
	} {
		set, err := parseCPUList(list, 16)
		require.NoError(t, err, "%q", list)
		require.Equal(t, want, parsed(set), "%q", list)
	}
}

func TestBadCPULists(t *testing.T) {
	for list, want := range map[string]unix.Errno{
		"16":                         unix.ERANGE,
		"1-16":                       unix.ERANGE,
		"5-2":                        unix.EINVAL,
		"-1":                         unix.EINVAL,
		"1-":                         unix.EINVAL,
		"x":                          unix.EINVAL,
		"1x":                         unix.EINVAL,
		"1-3x":                       unix.EINVAL,
		"1-3:":                       unix.EINVAL,
		"1-3:1":                      unix.EINVAL,
		"1-3:1/":                     unix.EINVAL,
		"1-3:1/0":                    unix.EINVAL,
		"1-3:2/1":                    unix.EINVAL,
		"1:1/1":                      unix.EINVAL, // a pattern needs a range
		"al":                         unix.EINVAL,
		"4294967296":                 unix.EOVERFLOW,
		"99999999999999999999999999": unix.EOVERFLOW,
	} {
		_, err := parseCPUList(list, 16)
		require.ErrorIs(t, err, want, "%q", list)
	}
}

func FuzzParseCPUList(f *testing.F) {
	for _, seed := range []string{"2-5,7", "all:1/2", "0-N:1/3\n", "1-4294967295", ",", "N-N"} {
		f.Add(seed, 16)
	}
	f.Fuzz(func(t *testing.T, list string, cpus int) {
		if cpus < 1 || cpus > maxCPUs {
			return
		}
		set, err := parseCPUList(list, cpus)
		if err == nil {
			require.Len(t, set, cpus)
		} else {
			require.True(t, Code(err) == int(unix.EINVAL) || Code(err) == int(unix.ERANGE) || Code(err) == int(unix.EOVERFLOW))
		}
	})
}

func TestTopologyNumbersCPUsLikeQEMUOrEC2(t *testing.T) {
	qemu := Topology{CPUs: 8, ThreadsPerCore: 2, NUMANodes: 2}
	require.Equal(t, []int{2, 3}, qemu.siblings(3))
	require.Equal(t, []int{0, 0, 0, 0, 1, 1, 1, 1}, []int{qemu.node(0), qemu.node(1), qemu.node(2), qemu.node(3), qemu.node(4), qemu.node(5), qemu.node(6), qemu.node(7)})
	ec2 := Topology{CPUs: 8, ThreadsPerCore: 2, NUMANodes: 1, Interleaved: true}
	require.Equal(t, []int{3, 7}, ec2.siblings(7))
	require.Equal(t, []int{1, 5}, ec2.siblings(1))
}

func TestTopologiesThatCannotBe(t *testing.T) {
	for _, topology := range []Topology{
		{CPUs: -1}, {CPUs: 9000}, {CPUs: 3}, {CPUs: 4, ThreadsPerCore: -2}, {CPUs: 4, NUMANodes: 3}, {CPUs: 4, NUMANodes: -1},
		{CPUs: 4, Offline: []int{4}}, {CPUs: 4, Offline: []int{-1}},
	} {
		_, err := NewHost(HostConfig{Topology: topology})
		require.Error(t, err, "%+v", topology)
	}
}

func TestPoolRules(t *testing.T) {
	for name, c := range map[string]struct {
		list string
		want error
		text string
	}{
		"full cores":             {"2-3", nil, ""},
		"empty":                  {"", unix.EINVAL, "no CPU in it"},
		"no list":                {"two", unix.EINVAL, "CPU list"},
		"no such CPU":            {"2-3,8", unix.ERANGE, "CPU 8 does not exist"},
		"offline CPU":            {"6-7", unix.EINVAL, "CPU 7 is offline"},
		"two NUMA nodes":         {"2-5", unix.EINVAL, "different NUMA nodes"},
		"CPU 0":                  {"0-3", unix.EINVAL, "CPU 0 is of CPU 0's core"},
		"sibling of CPU 0":       {"1-3", unix.EINVAL, "CPU 1 is of CPU 0's core"},
		"half a core":            {"2", unix.EINVAL, "CPU 3 is missing"},
		"longer than a page has": {"2-3" + strings.Repeat(",", 600), unix.ENOSPC, "characters"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, HostConfig{Topology: Topology{CPUs: 8, ThreadsPerCore: 2, NUMANodes: 2, Offline: []int{7}}}, "")
			err := w.driver.SetCPUs(c.list)
			if c.want == nil {
				require.NoError(t, err)
				list, cpus := w.driver.CPUs()
				require.Equal(t, c.list, list)
				require.NotEmpty(t, cpus)
				return
			}
			requireErrno(t, c.want, err)
			require.Contains(t, err.Error(), c.text)
			list, cpus := w.driver.CPUs()
			require.Empty(t, list)
			require.Empty(t, cpus)
			_, err = w.file.CreateVM()
			require.ErrorIs(t, err, NEErrNoCPUsAvailInPool)
		})
	}
}

func TestPoolTakesItsCPUsFromTheParentAndGivesThemBack(t *testing.T) {
	w := newWorld(t, HostConfig{}, "4-5")
	require.Equal(t, []int{0, 1, 2, 3, 6, 7}, w.host.OnlineCPUs())
	require.NoError(t, w.driver.SetCPUs("4-7"), "a pool's own CPUs count as online for the next")
	require.Equal(t, []int{0, 1, 2, 3}, w.host.OnlineCPUs())

	other := newDriver(w.host, newFakePCI())
	require.ErrorIs(t, other.SetCPUs("4-5"), unix.EINVAL, "another driver of the same parent cannot have them")
	require.NoError(t, other.Close())

	require.Error(t, w.driver.SetCPUs("4"))
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, w.host.OnlineCPUs(), "a bad list leaves no pool")
	require.NoError(t, w.driver.SetCPUs("6-7"))
	require.NoError(t, w.driver.Close())
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, w.host.OnlineCPUs())
}

func TestThePoolIsGivenInEveryFormOfACPUList(t *testing.T) {
	for list, want := range map[string][]int{"4-N": {4, 5, 6, 7}, "6-7, 4-5": {4, 5, 6, 7}} {
		w := newWorld(t, HostConfig{}, list)
		_, cpus := w.driver.CPUs()
		require.Equal(t, want, cpus, list)
	}
}

func TestPoolCannotChangeWhileThereAreEnclaves(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	requireErrno(t, unix.EPERM, w.driver.SetCPUs("4-5"))
	list, cpus := w.driver.CPUs()
	require.Equal(t, "2-3", list)
	require.Equal(t, []int{2, 3}, cpus)
	require.NoError(t, e.Close())
	require.NoError(t, w.driver.SetCPUs("4-5"))
}

func TestAutoChosenVCPUsFillACoreBeforeTheNext(t *testing.T) {
	w := newWorld(t, HostConfig{Topology: Topology{CPUs: 8, ThreadsPerCore: 2, Interleaved: true}}, "1,5,2,6")
	e := w.create()
	for _, want := range []uint32{1, 5, 2, 6} {
		cpu, err := e.AddVCPU(0)
		require.NoError(t, err)
		require.Equal(t, want, cpu)
	}
	_, err := e.AddVCPU(0)
	requireErrno(t, NEErrNoCPUsAvailInPool, err)
}

func TestAskedForVCPUBringsItsWholeCore(t *testing.T) {
	w := newWorld(t, HostConfig{Topology: Topology{CPUs: 8, ThreadsPerCore: 2}}, "2-5")
	a, b := w.create(), w.create()
	cpu, err := a.AddVCPU(5)
	require.NoError(t, err)
	require.EqualValues(t, 5, cpu)

	_, err = b.AddVCPU(4)
	requireErrno(t, NEErrVCPUNotInCPUPool, err)
	require.Contains(t, err.Error(), "CPU 4")
	cpu, err = b.AddVCPU(0)
	require.NoError(t, err)
	require.EqualValues(t, 2, cpu)
	cpu, err = a.AddVCPU(0)
	require.NoError(t, err)
	require.EqualValues(t, 4, cpu, "the core's other thread")

	require.NoError(t, a.Close())
	_, err = b.AddVCPU(4)
	require.NoError(t, err, "a closed enclave's cores are free again")
}

func TestCoreStaysWithTheEnclaveWhenTheDeviceRefusesTheVCPU(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	w.donate(e, w.mmap(MapSpec{Size: 64 << 20}))
	w.dev.set(func() { w.dev.refuse[pcidev.CmdSlotAddVCPU] = unix.ENOSPC })
	_, err := e.AddVCPU(0)
	requireErrno(t, unix.ENOSPC, err)
	_, err = w.file.CreateVM()
	requireErrno(t, NEErrNoCPUsAvailInPool, err)

	w.dev.set(func() { clear(w.dev.refuse) })
	w.addVCPUs(e, 1)
	_, err = e.StartEnclave(StartInfo{})
	requireErrno(t, NEErrFullCoresNotUsed, err)
	w.addVCPUs(e, 1)
	_, err = e.StartEnclave(StartInfo{})
	require.NoError(t, err)
}
