package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are the examples in the help of every command, by the command: lines for a shell.
var examples = map[string][]string{
	"nesim": {
		"nesim build-enclave --rootfs ./hello --output-file hello.eif",
		"nesim run-enclave hello.eif --cpu-count 2 --memory 512 --debug-mode",
		"nesim console hello",
		"nesim terminate-enclave --all",
	},
	"nesim run-enclave": {
		"nesim run-enclave --eif-path hello.eif --cpu-count 2 --memory 512",
		"nesim run-enclave hello.eif --cpu-ids 2 3 --memory 1G --enclave-cid 16 --attach-console",
		"nesim run-enclave --config hello.json",
	},
	"nesim describe-enclaves": {"nesim describe-enclaves", "nesim describe-enclaves --metadata --json"},
	"nesim console":           {"nesim console hello", "nesim console --enclave-id i-0000000000000000-enc1 --disconnect-timeout 10"},
	"nesim terminate-enclave": {"nesim terminate-enclave hello", "nesim terminate-enclave --all"},
	"nesim wait-enclave":      {"nesim wait-enclave hello", "nesim wait-enclave --enclave-name hello --json"},
	"nesim build-enclave": {
		"nesim build-enclave --docker-uri hello:latest --output-file hello.eif",
		"nesim build-enclave --docker-uri hello:latest --docker-dir ./hello --output-file hello.eif",
		"nesim build-enclave --docker-uri ./hello.tar --output-file hello.eif",
		"nesim build-enclave --rootfs ./hello --output-file hello.eif",
	},
	"nesim describe-eif": {"nesim describe-eif hello.eif", "nesim describe-eif --eif-path hello.eif --json"},
	"nesim eif":          {"nesim eif inspect hello.eif", "nesim eif diff before.eif after.eif"},
	"nesim eif inspect":  {"nesim eif inspect hello.eif"},
	"nesim eif extract":  {"nesim eif extract hello.eif --output ./sections"},
	"nesim eif diff":     {"nesim eif diff before.eif after.eif", "nesim eif diff --exit-code before.eif after.eif"},
	"nesim pcr":          {"nesim pcr --input ./kernel", "nesim pcr --signing-certificate cert.pem"},
	"nesim explain":      {"nesim explain E36", "nesim explain --error-code E36"},
	"nesim attest": {
		"nesim attest root > root.pem",
		"nesim attest verify document --root root.pem --nonce 00ff",
	},
	"nesim attest root":     {"nesim attest root > root.pem", "nesim attest root --format der > root.der"},
	"nesim attest verify":   {"nesim attest verify document --nonce 00ff", "echo attest 00ff | nesim vsock dial 16 5006 | nesim attest verify -"},
	"nesim attest show":     {"nesim attest show document", "nesim attest show - < document"},
	"nesim attest document": {"nesim attest document --eif-path hello.eif --nonce 00ff --output document"},
	"nesim kms":             {"nesim kms serve --vsock-port 8000"},
	"nesim kms serve": {
		"nesim kms serve --vsock-port 8000",
		"aws --endpoint-url http://127.0.0.1:4599 kms create-key --policy file://policy.json",
	},
	"nesim parent": {
		"nesim parent",
		"nesim parent --copy my-launcher --copy hello.eif --exec './my-launcher hello.eif'",
		"nesim parent --exec 'ls /sys/bus/pci/drivers/nitro_enclaves'",
	},
	"nesim vsock":        {"echo hi | nesim vsock dial --wait 16 5005", "nesim vsock listen 7000"},
	"nesim vsock dial":   {"echo hi | nesim vsock dial --wait 16 5005"},
	"nesim vsock listen": {"nesim vsock listen 7000 > received"},
	"nesim scenario":     {"nesim scenario run", "nesim scenario lint ./scenarios"},
	"nesim scenario run": {
		"nesim scenario run late.yaml",
		"nesim scenario run --engine qemu --tags smoke",
		"nesim scenario run --strict --report junit=out.xml --report html=out.html ./scenarios",
		"nesim scenario run --shard 1/4 --report json=1.json",
	},
	"nesim scenario merge":  {"nesim scenario merge 1.json 2.json 3.json 4.json --report junit=out.xml"},
	"nesim scenario lint":   {"nesim scenario lint late.yaml"},
	"nesim scenario list":   {"nesim scenario list --tags field", "nesim scenario list --json ./scenarios"},
	"nesim scenario schema": {"nesim scenario schema > scenario.schema.json"},
	"nesim scenario record": {"nesim scenario record session --socket ./pci.sock"},
	"nesim scenario replay": {"nesim scenario replay session --shrink --scenario session.yaml"},
	"nesim serve":           {"nesim serve", "nesim serve --cpus 32 --ne-cpus 2-31 --max-enclaves 8", "nesim serve --record session"},
	"nesim shutdown":        {"nesim shutdown"},
	"nesim doctor":          {"nesim doctor", "nesim doctor --json"},
	"nesim man":             {"nesim man --output ~/.local/share/man/man1"},
	"nesim version":         {"nesim version", "nesim version --json"},
	"nesim help":            {"nesim help run-enclave"},
	"nesim completion": {
		"nesim completion bash > ~/.local/share/bash-completion/completions/nesim",
	},
	"nesim completion bash":       {"nesim completion bash > ~/.local/share/bash-completion/completions/nesim"},
	"nesim completion zsh":        {"nesim completion zsh > ~/.zfunc/_nesim"},
	"nesim completion fish":       {"nesim completion fish > ~/.config/fish/completions/nesim.fish"},
	"nesim completion powershell": {"nesim completion powershell > nesim.ps1"},
}

// addExamples puts a command's examples into its help.
func addExamples(cmd *cobra.Command) {
	if lines := examples[cmd.CommandPath()]; cmd.Example == "" && len(lines) > 0 {
		cmd.Example = "  " + strings.Join(lines, "\n  ")
	}
}
