package scenarios_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/nesim/nesim/scenarios/steps"
)

// compiled is the schema as an editor has it.
func compiled(t *testing.T) *jsonschema.Schema {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(steps.Language.Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", document))
	schema, err := c.Compile("schema.json")
	require.NoError(t, err)
	return schema
}

func TestTheSchemaTakesTheSuite(t *testing.T) {
	schema := compiled(t)
	files, err := filepath.Glob("suite/[a-z]*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		d := yaml.NewDecoder(bytes.NewReader(text))
		for {
			var document any
			err := d.Decode(&document)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			require.NoError(t, schema.Validate(document), "%s: %v", file, document)
		}
	}
}

func TestTheSchemaRefusesWhatTheParserRefuses(t *testing.T) {
	schema := compiled(t)
	for _, text := range []string{
		"nam: x\nsteps: []",
		"name: x",
		"name: x\nsteps: soon",
		"name: x\nsteps: []",
		"name: x\nsteps:\n- hearbeat: {enclave: e}",
		"name: x\nsteps:\n- run: {enclave: e, memroy: 1G}",
		"name: x\nsteps:\n- run: {cid: 3}",
		"name: x\nsteps:\n- run: {enclave: e, memory: lots}",
		"name: x\nsteps:\n- {run: {enclave: e}, terminate: {enclave: e}}",
		"name: x\nsteps:\n- {}",
		"name: x\nengines: [xen]\nsteps:\n- run: {enclave: e}",
		"name: x\nfaults:\n- {at: reply, do: explode}\nsteps:\n- run: {enclave: e}",
		"name: x\nsteps:\n- sleep: {for: soon, why: it is late}",
	} {
		var document any
		require.NoError(t, yaml.Unmarshal([]byte(text), &document))
		require.Error(t, schema.Validate(document), text)
		_, err := steps.Language.Parse("f.yaml", []byte(text))
		require.Error(t, err, text)
	}
}
