package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAModuleIsResolvedByItsNameOrItsAliases(t *testing.T) {
	dep := "loop_common.ko.gz:\nx_tables.ko.gz:\nip_tables.ko.gz: x_tables.ko.gz\niptable_nat.ko.gz: ip_tables.ko.gz x_tables.ko.gz\n" +
		"ring.ko.gz: ring.ko.gz\n"
	alias := "alias fs-odd* loop_common\nalias ipt_icmp ip_tables\nalias char-major-10-200 loop_common\nalias [ x_tables\nalias nothing missing\n"
	for wanted, files := range map[string][]string{
		"iptable_nat":       {"x_tables.ko.gz", "ip_tables.ko.gz", "iptable_nat.ko.gz"},
		"iptable-nat":       {"x_tables.ko.gz", "ip_tables.ko.gz", "iptable_nat.ko.gz"},
		"ipt_icmp":          {"x_tables.ko.gz", "ip_tables.ko.gz"},
		"fs-oddity":         {"loop_common.ko.gz"},
		"char-major-10-200": {"loop_common.ko.gz"},
		"ring":              {"ring.ko.gz"},
		"nothing":           nil,
		"../x_tables":       nil,
		"":                  nil,
	} {
		require.Equal(t, files, resolve(wanted, dep, alias), "%q", wanted)
	}
}

func TestADevicesNumberIsRead(t *testing.T) {
	major, minor, ok := parseDevice("c10:200")
	require.True(t, ok)
	require.Equal(t, [2]uint32{10, 200}, [2]uint32{major, minor})
	for _, text := range []string{"", "c", "10:200", "b10:200", "c10", "c10:", "c-1:2", "c4096:0", "c10:1048576"} {
		_, _, ok := parseDevice(text)
		require.False(t, ok, "%q", text)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("tun", "tun.ko.gz:\n", "alias net/tun tun\n")
	f.Fuzz(func(t *testing.T, wanted, dep, alias string) { resolve(wanted, dep, alias) })
}
