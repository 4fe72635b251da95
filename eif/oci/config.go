package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Honor names what of an image's configuration is taken although nitro-cli leaves it out, as its enclaves' init knows
// nothing of it (enclave_build/src/docker.rs, extract_image).
type Honor struct {
	Entrypoint bool // run ENTRYPOINT with CMD as its arguments, instead of CMD where there is one, and else ENTRYPOINT
	WorkDir    bool // start in WORKDIR, instead of /
	User       bool // run as USER, instead of root
}

// setConfig takes the configuration as it is stored.
func (i *Image) setConfig(data []byte) (err error) {
	i.Config, err = parseConfig(data)
	if err != nil {
		return fmt.Errorf("its configuration cannot be read: %w", err)
	}
	i.ID, _, err = v1.SHA256(bytes.NewReader(data))
	return err
}

// parseConfig reads an image's configuration. As in Docker (api/types/strslice), Cmd and Entrypoint may be one string.
func parseConfig(data []byte) (*v1.ConfigFile, error) {
	parsed, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err == nil {
		return parsed, nil
	}
	var file, config map[string]json.RawMessage
	if json.Unmarshal(data, &file) != nil || json.Unmarshal(file["config"], &config) != nil {
		return nil, err
	}
	for _, key := range []string{"Cmd", "Entrypoint"} {
		if text := config[key]; bytes.HasPrefix(text, []byte(`"`)) {
			config[key] = slices.Concat([]byte("["), text, []byte("]"))
		}
	}
	again, e := json.Marshal(config)
	if e != nil {
		return nil, err
	}
	file["config"] = again
	if again, e = json.Marshal(file); e != nil {
		return nil, err
	}
	return v1.ParseConfigFile(bytes.NewReader(again))
}

// command returns the command to run. A shell form is one already: engines store what it stands for.
func (i *Image) command() ([]string, error) {
	c := i.Config.Config
	command := slices.Concat(c.Entrypoint, c.Cmd)
	if len(command) == 0 {
		return nil, errors.New("it names no command to run: give it an ENTRYPOINT or a CMD")
	}
	if i.honors(i.options.Honor.Entrypoint, "ENTRYPOINT", strings.Join(c.Entrypoint, " "),
		len(c.Entrypoint) == 0 || len(c.Cmd) == 0, fmt.Sprintf("the enclave runs CMD alone, %.100q", strings.Join(c.Cmd, " "))) {
		return i.lines("ENTRYPOINT and CMD", command), nil
	}
	return i.lines("CMD", c.Cmd), nil
}

// honors reports whether a part of the configuration is to be taken. It notes one that is not, and would matter.
func (i *Image) honors(wanted bool, what, value string, same bool, instead string) bool {
	if !wanted && !same {
		i.options.Note(fmt.Sprintf("%s %.100q is ignored, as nitro-cli does: %s (--honor-%s)", what, value, instead, strings.ToLower(what)))
	}
	return wanted || same
}

// isRoot reports whether a USER is who runs anyway.
func isRoot(user string) bool {
	name, group, _ := strings.Cut(user, ":")
	return (name == "" || name == "root" || name == "0") && (group == "" || group == "root" || group == "0")
}

// lines returns texts as an enclave's init reads them from its files, one a line: a newline begins another.
func (i *Image) lines(what string, texts []string) (lines []string) {
	for n, text := range texts {
		if strings.Contains(text, "\n") {
			i.options.Note(fmt.Sprintf("%s: its part %d has a newline in it, at which init ends it: what follows is a part of its own, as on AWS", what, n+1))
		}
		lines = append(lines, strings.Split(text, "\n")...)
	}
	return lines
}
