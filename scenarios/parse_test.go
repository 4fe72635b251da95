package scenarios_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/sim/nedriver"
)

func TestAScenarioIsRead(t *testing.T) {
	all, err := steps.Language.Parse("one.yaml", []byte(`
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
	require.Equal(t, 30*time.Second, s.Faults[0].For)
	require.Equal(t, &steps.RunEnclave{
		Enclave: "one", CPUs: 4, Memory: 512 << 20, CID: 16, Does: &scripted.Behaviour{Boot: 2 * time.Second},
	}, s.Steps[0].Action)
	branches := *s.Steps[1].Action.(*scenarios.Parallel)
	require.Equal(t, "exit 3", branches["left"][0].Action.(*steps.Call).Command)
	require.Equal(t, "guest exit", branches["right"][0].Action.(*steps.Ended).Reason)
	require.Equal(t, 15, s.Steps[2].Line)
	require.Equal(t, nedriver.ErrorCode(nedriver.NEErrInvalidVCPU), s.Steps[2].ExpectError)
	require.Equal(t, &steps.Restart{}, s.Steps[3].Action)
	require.False(t, s.On("qemu"))
}

func TestAMatrixIsAScenarioForEachCombination(t *testing.T) {
	all, err := steps.Language.Parse("m.yaml", []byte(`
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
	last := all[5].Steps[0].Action.(*steps.RunEnclave)
	require.EqualValues(t, 18, last.CID)
	require.Equal(t, scripted.Reboot, last.Does.Ends.How)
	require.Equal(t, "another", all[6].Name)
}

func TestAMistakeIsToldWithItsPlaceAndTheRightSpelling(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":        {"nam: x\nsteps: []", `f.yaml:1:1: unknown key "nam": did you mean "name"?`},
		"unknown step":       {"name: x\nsteps:\n  - hearbeat: {enclave: e}", `f.yaml:3:5: unknown key "hearbeat": did you mean "heartbeat"?`},
		"unknown parameter":  {"name: x\nsteps:\n  - run: {enclave: e, memroy: 1G}", `f.yaml:3:23: unknown key "memroy": did you mean "memory"?`},
		"missing":            {"name: x\nsteps:\n  - run: {cid: 3}", `f.yaml:3:10: "enclave" is missing`},
		"no name":            {"steps: []", `f.yaml:1:1: "name" is missing`},
		"no steps":           {"name: x\nsteps: []", `f.yaml:1:1: the scenario has no steps`},
		"wrong type":         {"name: x\nsteps: soon", `f.yaml:2:8: want a list, not "soon"`},
		"wrong number":       {"name: x\nsteps:\n  - run: {enclave: e, cid: many}", `f.yaml:3:28: want a whole number from 0 on, not "many"`},
		"negative number":    {"name: x\nsteps:\n  - run: {enclave: e, cid: -1}", `want a whole number from 0 on, not "-1"`},
		"wrong duration":     {"name: x\ntimeout: 5\nsteps: []", `f.yaml:2:10: want a duration such as 30s, not "5"`},
		"negative duration":  {"name: x\ntimeout: -5s\nsteps: []", "want a duration"},
		"wrong size":         {"name: x\nsteps:\n  - run: {enclave: e, memory: 1T}", `want a number of bytes such as 4096, 64K, 2M or 1G, not "1T"`},
		"huge size":          {"name: x\nsteps:\n  - run: {enclave: e, memory: 99999999999G}", "want a number of bytes"},
		"wrong word":         {"name: x\nsteps:\n  - run: {enclave: e}\n  - ended: {enclave: e, reason: guest panik}", `unknown value "guest panik": choose asked, guest exit, guest panic, VM killed, VM failed: did you mean "guest panic"?`},
		"two actions":        {"name: x\nsteps:\n  - sleep: {for: 1s, why: w}\n    restart:", `f.yaml:3:5: a step has one action, not restart and sleep`},
		"no action":          {"name: x\nsteps:\n  - name: nothing", `the step has no action`},
		"twice":              {"name: x\nname: y\nsteps: []", `"name" is given twice`},
		"unknown enclave":    {"name: x\nsteps:\n  - poll: {enclave: e}", `f.yaml:3:5: no earlier step makes an enclave "e"`},
		"unknown variable":   {"name: ${nam}\nvars: {name: x}\nsteps: []", `no variable "nam" in vars or matrix: did you mean "name"?`},
		"unknown error":      {"name: x\nsteps:\n  - create: {enclave: e}\n    expect_error: NE_ERR_INVALID_VPCU", `f.yaml:4:19: unknown error "NE_ERR_INVALID_VPCU": did you mean NE_ERR_INVALID_VCPU?`},
		"unknown command":    {"name: x\nsteps:\n  - pci: {command: SLOT_ALOC}", `f.yaml:3:20: unknown device command "SLOT_ALOC": did you mean SLOT_ALLOC?`},
		"impossible fault":   {"name: x\nfaults: [{at: start, do: delay}]\nsteps: []", "a fault at start cannot do delay"},
		"fault without":      {"name: x\nfaults: [{at: reply, do: delay}]\nsteps: []", `delay needs "for"`},
		"include and more":   {"name: x\nsteps:\n  - {include: f.yaml, name: y}", `f.yaml:3:5: include must be the step's only key`},
		"unknown reply":      {"name: x\nsteps:\n  - pci: {command: SLOT_COUNT, reply: {slot_cuont: 1}}", `unknown field "slot_cuont": did you mean "slot_count"?`},
		"bad hex":            {"name: x\nsteps:\n  - dial: {as: c, port: 1}\n  - send: {on: c, hex: 0g}", `f.yaml:4:5: hex: `},
		"impossible chance":  {"name: x\nfaults: [{at: start, do: refuse, chance: 2}]\nsteps: []", "chance must be 0 to 1, not 2"},
		"regular expression": {"name: x\nsteps:\n  - run: {enclave: e}\n  - console: {enclave: e, regexp: \"(\"}", `f.yaml:4:5: invalid regular expression: missing closing ): `},
		"a taken image":      {"name: x\nsteps:\n  - build: {as: hello}", `image name "hello" is reserved`},
		"a bad signature":    {"name: x\nsteps:\n  - build: {as: x, sign: expird}", `unknown value "expird": choose valid, expired, forged: did you mean "expired"?`},
		"real time":          {"name: x\nsteps:\n  - exec: {command: ls}", "give the scenario engines: [qemu]"},
		"no list of ports":   {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: 7000}", `f.yaml:4:33: want a list, not "7000"`},
		"no port":            {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: [7000, http]}", `f.yaml:4:40: want a whole number from 0 to 4294967295, not "http"`},
		"port nobody has":    {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: [0]}", `f.yaml:4:5: port 0 is reserved: listen on 1 to 4294967294`},
		"port twice":         {"name: x\nengines: [qemu]\nsteps:\n  - exec: {command: ls, listen: [7000, 7000]}", `f.yaml:4:5: port 7000 is given twice`},
		"scripted only":      {"name: x\nsteps:\n  - run: {enclave: e, does: {mute: true}}", `f.yaml:3:5: does is for scripted enclaves: give the scenario engines: [scripted]`},
		"unknown connection": {"name: x\nsteps:\n  - listen: {as: port, port: 1}\n  - accept: {as: in, on: prot}", `f.yaml:4:5: no earlier step makes a connection or a listener "prot": did you mean "port"?`},
		"unknown memory":     {"name: x\nsteps:\n  - create: {enclave: e}\n  - add_memory: {enclave: e, again: m}", `f.yaml:4:5: no earlier step makes memory "m"`},
		"no size":            {"name: x\nsteps:\n  - create: {enclave: e}\n  - add_memory: {enclave: e}", `f.yaml:4:5: "size" is missing`},
		"unknown slot":       {"name: x\nsteps:\n  - pci: {command: SLOT_FREE, slot: s}", `no earlier step makes a slot "s"`},
		"unknown process":    {"name: x\nsteps:\n  - exit_process: {process: p}", `no earlier step makes a process "p"`},
		"unknown ioctl":      {"name: x\nsteps:\n  - ioctl: {number: NE_CREAT_VM}", `unknown ioctl "NE_CREAT_VM": did you mean NE_CREATE_VM?`},
		"unknown field":      {"name: x\nsteps:\n  - ioctl: {number: NE_CREATE_VM, fields: {slot_id: 1}}", `unknown field "slot_id": did you mean "slot_uid"?`},
		"wide field":         {"name: x\nsteps:\n  - ioctl: {number: NE_ADD_VCPU, fields: {vcpu_id: 4294967296}}", `field vcpu_id has 32 bits: 4294967296 is too large`},
		"unknown pci field":  {"name: x\nsteps:\n  - pci: {command: SLOT_COUNT, fields: {slot_uid: 1}}", `f.yaml:3:5: unknown field "slot_uid": the command has no fields`},
		"unknown rc":         {"name: x\nsteps:\n  - pci: {command: SLOT_COUNT, rc: ENOTHING}", `f.yaml:3:36: unknown error "ENOTHING"`},
		"nothing expected":   {"name: x\nsteps:\n  - dial: {as: c, port: 1}\n  - expect: {on: c}", `f.yaml:4:5: give one of text, regexp, size, eof, reset or silent, not 0`},
		"too much to send":   {"name: x\nsteps:\n  - dial: {as: c, port: 1}\n  - send: {on: c, text: a, size: 3}", `give one of text, hex or size, not 2`},
		"nothing to close":   {"name: x\nsteps:\n  - close: {}", `give one of on or enclave, not 0`},
		"in a fault's place": {"name: x\nfaults:\n- {at: start, do: refuse}\n- {at: event, do: refuse}\nsteps: []", `f.yaml:4:3: a fault at event cannot do refuse`},
		"alias":              {"name: &x x\ndescription: *x\nsteps: []", "anchors and aliases are not supported"},
		"no YAML":            {"name: [", "f.yaml:1:1: invalid YAML: "},
		"empty":              {"", "f.yaml:1:1: the file has no scenario"},
		"matrix":             {"name: x\nmatrix: {a: [b], c: b}\nsteps: []", `f.yaml:2:21: want a list, not "b"`},
		"in a matrix":        {"name: x\nmatrix: {a: [b]}\nsteps: [sleep: {for: 1s}]", `"why" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := steps.Language.Parse("f.yaml", []byte(test.text))
			require.ErrorContains(t, err, test.want)
		})
	}
	_, err := steps.Language.Parse("f.yaml", []byte("name: x\nstep: 1\nsteps: 2"))
	require.Len(t, strings.Split(err.Error(), "\n"), 2, "all mistakes are told at once")
	deep := "name: x\nsteps:\n" + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	_, err = steps.Language.Parse("f.yaml", []byte(deep))
	require.Error(t, err)
	wide := "name: x\nmatrix: {a: [" + strings.Repeat("1, ", 100) + "1], b: [" + strings.Repeat("1, ", 100) + "1]}\nsteps: []"
	_, err = steps.Language.Parse("f.yaml", []byte(wide))
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
	all, err := steps.Language.ParseFS(t.Context(), files, "dir/main.yaml")
	require.NoError(t, err)
	require.Len(t, all[0].Steps, 3)
	require.Equal(t, "dir/parts/boot.yaml", all[0].Steps[1].File)
	require.Equal(t, 2, all[0].Steps[1].Line)
	require.Equal(t, "dir/main.yaml", all[0].Steps[2].File)
	for file, want := range map[string]string{
		"dir/self.yaml": "includes itself, or includes nest deeper than 8 files",
		"dir/bad.yaml":  `dir/broken.yaml:1:9: unknown key "enclav"`,
		"dir/out.yaml":  "dir/out.yaml:3:14: ../secret.yaml is outside the file's folder",
		"dir/none.yaml": "file does not exist",
	} {
		_, err := steps.Language.ParseFS(t.Context(), files, file)
		require.ErrorContains(t, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: x\nmatrix: {a: [b, c]}\nsteps:\n  - run: {enclave: \"${a}\", memory: 1G}\n---\nname: y\nsteps: []\n"))
	f.Add([]byte("name: x\nfaults: [{at: reply, do: errno, errno: ENOSPC}]\nsteps: [{parallel: {a: [{sleep: {for: 1s, why: w}}]}}]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		all, err := steps.Language.Parse("f", content)
		if err != nil {
			require.Empty(t, all)
			return
		}
		for _, s := range all {
			require.NotEmpty(t, s.File)
			require.NotEmpty(t, s.Steps)
		}
	})
}
