package scenarios

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAScenarioIsRead(t *testing.T) {
	all, err := Parse("one.yaml", []byte(`
name: the heartbeat is late
engines: [scripted]
tags: [heartbeat]
vars: {late: 30s}
faults:
  - {at: heartbeat, do: delay, for: "${late}", enclave: one}
steps:
  - run: {enclave: one, cpus: 4, memory: 512M, cid: 16, does: {boot: 2s}}
  - parallel:
      left:
        - call: {enclave: one, command: exit 3, answer: code 3}
      right:
        - ended: {enclave: one, reason: guest exit}
  - terminate: {enclave: one}
    expect_error: NE_ERR_INVALID_VCPU
  - restart:
`))
	require.NoError(t, err)
	require.Len(t, all, 1)
	s := all[0]
	require.Equal(t, "one.yaml", s.File)
	require.Equal(t, 2, s.Line)
	require.Equal(t, 30*time.Second, s.Faults[0].Arm().For)
	require.Equal(t, &RunEnclave{Enclave: "one", CPUs: 4, Memory: 512 << 20, CID: 16, Does: &Behaviour{Boot: Duration(2 * time.Second)}}, s.Steps[0].Run)
	require.Equal(t, "exit 3", s.Steps[1].Parallel["left"][0].Call.Command)
	require.Equal(t, "guest exit", s.Steps[1].Parallel["right"][0].Ended.Reason)
	require.Equal(t, 15, s.Steps[2].Line)
	require.NotNil(t, s.Steps[3].Restart)
	require.False(t, s.On("qemu"))
}

func TestAMatrixIsAScenarioForEachCombination(t *testing.T) {
	all, err := Parse("m.yaml", []byte(`
name: ends by ${how}
engines: [scripted]
matrix: {how: [panic, reboot], cid: ["16", "17", "18"]}
steps:
  - run: {enclave: e, cid: "${cid}", does: {ends: {at: 1s, how: "${how}"}}}
---
name: another
steps: [sleep: {for: 1s, why: to show it}]
`))
	require.NoError(t, err)
	require.Len(t, all, 7)
	require.Equal(t, "ends by panic [cid=16]", all[0].Name)
	require.Equal(t, "ends by reboot [cid=18]", all[5].Name)
	require.EqualValues(t, 18, all[5].Steps[0].Run.CID)
	require.EqualValues(t, "reboot", all[5].Steps[0].Run.Does.Ends.How)
	require.Equal(t, "another", all[6].Name)
}

func TestAMistakeIsToldWithItsPlaceAndTheRightSpelling(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":        {"nam: x\nsteps: []", `f.yaml:1:1: no key "nam" here ("name" is meant?)`},
		"unknown step":       {"name: x\nsteps:\n  - hearbeat: {enclave: e}", `f.yaml:3:5: no key "hearbeat" here ("heartbeat" is meant?)`},
		"unknown parameter":  {"name: x\nsteps:\n  - run: {enclave: e, memroy: 1G}", `f.yaml:3:23: no key "memroy" here ("memory" is meant?)`},
		"missing":            {"name: x\nsteps:\n  - run: {cid: 3}", `f.yaml:3:10: "enclave" is missing`},
		"no name":            {"steps: []", `f.yaml:1:1: "name" is missing`},
		"no steps":           {"name: x\nsteps: []", `f.yaml:1:1: a scenario without steps shows nothing`},
		"wrong type":         {"name: x\nsteps: soon", `f.yaml:2:8: want a list, not "soon"`},
		"wrong number":       {"name: x\nsteps:\n  - run: {enclave: e, cid: many}", `f.yaml:3:28: want a whole number from 0 on, not "many"`},
		"negative number":    {"name: x\nsteps:\n  - run: {enclave: e, cid: -1}", `want a whole number from 0 on, not "-1"`},
		"wrong duration":     {"name: x\ntimeout: 5\nsteps: []", `f.yaml:2:10: want a length of time such as 30s, not "5"`},
		"negative duration":  {"name: x\ntimeout: -5s\nsteps: []", "want a length of time"},
		"wrong size":         {"name: x\nsteps:\n  - run: {enclave: e, memory: 1T}", `want a number of bytes such as 4096, 64K, 2M or 1G, not "1T"`},
		"huge size":          {"name: x\nsteps:\n  - run: {enclave: e, memory: 99999999999G}", "want a number of bytes"},
		"wrong word":         {"name: x\nsteps:\n  - run: {enclave: e}\n  - ended: {enclave: e, reason: guest panik}", `no "guest panik" here ("guest panic" is meant?): choose asked, guest exit, guest panic, VM killed, VM failed`},
		"two actions":        {"name: x\nsteps:\n  - sleep: {for: 1s, why: w}\n    restart:", `f.yaml:3:5: a step has one action, not restart and sleep`},
		"no action":          {"name: x\nsteps:\n  - name: nothing", `a step without an action`},
		"twice":              {"name: x\nname: y\nsteps: []", `"name" is here twice`},
		"unknown enclave":    {"name: x\nsteps:\n  - poll: {enclave: e}", `f.yaml:3:5: no step before this one makes an enclave "e"`},
		"unknown variable":   {"name: ${nam}\nvars: {name: x}\nsteps: []", `no variable "nam" is in vars or matrix ("name" is meant?)`},
		"unknown error":      {"name: x\nsteps:\n  - create: {enclave: e}\n    expect_error: NE_ERR_INVALID_VPCU", `no error is called "NE_ERR_INVALID_VPCU" ("NE_ERR_INVALID_VCPU" is meant?)`},
		"unknown command":    {"name: x\nsteps:\n  - pci: {command: SLOT_ALOC}", `the device has no command "SLOT_ALOC" ("SLOT_ALLOC" is meant?)`},
		"impossible fault":   {"name: x\nfaults: [{at: start, do: delay}]\nsteps: []", "a fault at start cannot do delay"},
		"impossible chance":  {"name: x\nfaults: [{at: start, do: refuse, chance: 2}]\nsteps: []", "a chance of 2"},
		"regular expression": {"name: x\nsteps:\n  - run: {enclave: e}\n  - console: {enclave: e, regexp: \"(\"}", `"(" is no regular expression`},
		"a taken image":      {"name: x\nsteps:\n  - build: {as: hello}", `"hello" is the name of an image already`},
		"a bad signature":    {"name: x\nsteps:\n  - build: {as: x, sign: expird}", `no "expird" here ("expired" is meant?)`},
		"real time":          {"name: x\nsteps:\n  - exec: {command: ls}", "give the scenario engines: [qemu]"},
		"no list of ports":   {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: 7000}", `f.yaml:4:33: want a list, not "7000"`},
		"no port":            {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: [7000, http]}", `f.yaml:4:40: want a whole number from 0 to 4294967295, not "http"`},
		"port nobody has":    {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: [0]}", `f.yaml:4:5: nobody can connect to port 0: listen on 1 to 4294967294`},
		"port twice":         {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: [7000, 7000]}", `f.yaml:4:5: port 7000 is here twice`},
		"scripted only":      {"name: x\nsteps:\n  - run: {enclave: e, does: {mute: true}}", `f.yaml:3:5: does is for scripted enclaves: give the scenario engines: [scripted]`},
		"unknown connection": {"name: x\nsteps:\n  - listen: {as: port, port: 1}\n  - accept: {as: in, on: prot}", `f.yaml:4:5: no step before this one makes a connection or a listener "prot" ("port" is meant?)`},
		"unknown memory":     {"name: x\nsteps:\n  - create: {enclave: e}\n  - add_memory: {enclave: e, again: m}", `f.yaml:4:5: no step before this one makes memory "m"`},
		"no size":            {"name: x\nsteps:\n  - create: {enclave: e}\n  - add_memory: {enclave: e}", `f.yaml:4:5: "size" is missing`},
		"unknown slot":       {"name: x\nsteps:\n  - pci: {command: SLOT_FREE, slot: s}", `no step before this one makes a slot "s"`},
		"unknown process":    {"name: x\nsteps:\n  - exit_process: {process: p}", `no step before this one makes a process "p"`},
		"unknown ioctl":      {"name: x\nsteps:\n  - ioctl: {number: NE_CREAT_VM}", `the driver has no ioctl "NE_CREAT_VM" ("NE_CREATE_VM" is meant?)`},
		"unknown field":      {"name: x\nsteps:\n  - ioctl: {number: NE_CREATE_VM, fields: {slot_id: 1}}", `no field "slot_id" here ("slot_uid" is meant?): the fields are slot_uid`},
		"wide field":         {"name: x\nsteps:\n  - ioctl: {number: NE_ADD_VCPU, fields: {vcpu_id: 4294967296}}", `field vcpu_id has 32 bits: 4294967296 is too large`},
		"unknown pci field":  {"name: x\nsteps:\n  - pci: {command: SLOT_COUNT, fields: {slot_uid: 1}}", `f.yaml:3:5: no field "slot_uid" here: the command has none`},
		"unknown rc":         {"name: x\nsteps:\n  - pci: {command: SLOT_COUNT, rc: ENOTHING}", `rc: no error is called "ENOTHING"`},
		"nothing expected":   {"name: x\nsteps:\n  - dial: {as: c, port: 1}\n  - expect: {on: c}", `f.yaml:4:5: give one of text, regexp, size, eof, reset or silent, not 0`},
		"too much to send":   {"name: x\nsteps:\n  - dial: {as: c, port: 1}\n  - send: {on: c, text: a, size: 3}", `give one of text, hex or size, not 2`},
		"nothing to close":   {"name: x\nsteps:\n  - close: {}", `give one of on or enclave, not 0`},
		"in a fault's place": {"name: x\nfaults:\n- {at: start, do: refuse}\n- {at: event, do: refuse}\nsteps: []", `f.yaml:4:3: a fault at event cannot do refuse`},
		"alias":              {"name: &x x\ndescription: *x\nsteps: []", "anchors and aliases are not taken"},
		"no YAML":            {"name: [", "f.yaml:1:1: no YAML: "},
		"empty":              {"", "f.yaml:1:1: no scenario is in this file"},
		"matrix":             {"name: x\nmatrix: {a: [b], c: b}\nsteps: []", `f.yaml:2:21: want a list, not "b"`},
		"in a matrix":        {"name: x\nmatrix: {a: [b]}\nsteps: [sleep: {for: 1s}]", `"why" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(test.text))
			require.ErrorContains(t, err, test.want)
		})
	}
	_, err := Parse("f.yaml", []byte("name: x\nstep: 1\nsteps: 2"))
	require.Len(t, strings.Split(err.Error(), "\n"), 2, "all mistakes are told at once")
	deep := "name: x\nsteps:\n" + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	_, err = Parse("f.yaml", []byte(deep))
	require.Error(t, err)
	wide := "name: x\nmatrix: {a: [" + strings.Repeat("1, ", 100) + "1], b: [" + strings.Repeat("1, ", 100) + "1]}\nsteps: []"
	_, err = Parse("f.yaml", []byte(wide))
	require.ErrorContains(t, err, "more than 1000 combinations")
}

func TestStepsAreIncluded(t *testing.T) {
	files := fstest.MapFS{
		"dir/main.yaml":       {Data: []byte("name: x\nvars: {who: one}\nsteps:\n  - include: parts/boot.yaml\n  - poll: {enclave: one, expect: none}")},
		"dir/parts/boot.yaml": {Data: []byte("- run: {enclave: \"${who}\"}\n- call: {enclave: \"${who}\", command: env}")},
		"dir/self.yaml":       {Data: []byte("name: x\nsteps:\n  - include: loop.yaml")},
		"dir/loop.yaml":       {Data: []byte("- include: loop.yaml")},
		"dir/bad.yaml":        {Data: []byte("name: x\nsteps:\n  - include: broken.yaml")},
		"dir/broken.yaml":     {Data: []byte("- run: {enclav: e}")},
		"dir/out.yaml":        {Data: []byte("name: x\nsteps:\n  - include: ../secret.yaml")},
	}
	all, err := ParseFS(files, "dir/main.yaml")
	require.NoError(t, err)
	require.Len(t, all[0].Steps, 3)
	require.Equal(t, "dir/parts/boot.yaml", all[0].Steps[1].File)
	require.Equal(t, 2, all[0].Steps[1].Line)
	require.Equal(t, "dir/main.yaml", all[0].Steps[2].File)
	for file, want := range map[string]string{
		"dir/self.yaml": "includes itself, or 8 files one in the other",
		"dir/bad.yaml":  `dir/broken.yaml:1:9: no key "enclav" here`,
		"dir/out.yaml":  "dir/out.yaml:3:14: ../secret.yaml leaves the file's folder",
		"dir/none.yaml": "file does not exist",
	} {
		_, err := ParseFS(files, file)
		require.ErrorContains(t, err, want)
	}
}

func TestTheSchemaIsThatOfTheLanguage(t *testing.T) {
	want, err := MakeSchema()
	require.NoError(t, err)
	if os.Getenv("NESIM_WRITE_SCHEMA") != "" {
		require.NoError(t, os.WriteFile("schema.json", want, 0o644))
	}
	require.True(t, bytes.Equal(want, Schema), "the schema is old: NESIM_WRITE_SCHEMA=1 go test ./scenarios writes it anew")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: x\nmatrix: {a: [b, c]}\nsteps:\n  - run: {enclave: \"${a}\", memory: 1G}\n---\nname: y\nsteps: []\n"))
	f.Add([]byte("name: x\nfaults: [{at: reply, do: errno, errno: ENOSPC}]\nsteps: [{parallel: {a: [{sleep: {for: 1s, why: w}}]}}]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		all, err := Parse("f", content)
		if err != nil {
			require.Empty(t, all)
			return
		}
		for _, s := range all {
			require.NotEmpty(t, s.File)
			for i := range s.Faults {
				s.Faults[i].Arm()
			}
		}
	})
}
