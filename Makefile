# nesim: `make` lists what can be made.

export CGO_ENABLED ?= 0
export NESIM_CACHE ?= $(CURDIR)/.cache

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
REPRODUCIBLE := -trimpath -buildvcs=false

# What nesim --version prints. Empty where there is no git.
VERSION := $(shell git describe --tags --match 'v*' 2>/dev/null)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
VERSION_FLAGS = -X main.release=$(VERSION) -X main.commit=$(COMMIT)

.PHONY: help deps kernel samples programs build demo test race bench fuzz lint clean print-version-flags

help: ## what can be made
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

deps: ## find or fetch QEMU, the enclave kernel and busybox (under .cache)
	@qemu/setup/fetch.sh --parent

kernel: ## the enclave kernel shaped as AWS's, built of Debian's kernel source (needs gcc, and some minutes)
	@qemu/setup/fetch.sh --nitro

FOR_GUESTS = GOOS=linux GOARCH=amd64 GOAMD64=v1 CGO_ENABLED=0 $(GO) build $(REPRODUCIBLE) -ldflags='-s -w -buildid='

programs: # what runs inside an enclave and a primary VM; packages eif/pack and sim/primary embed them
	@$(FOR_GUESTS) -o eif/pack/programs/ ./cmd/init ./cmd/hello
	@$(FOR_GUESTS) -o sim/primary/programs/ ./cmd/parentinit

build: programs ## bin/nesim, static, and bin/hello to pack into an enclave
	@CGO_ENABLED=0 $(GO) build $(REPRODUCIBLE) -ldflags="$(VERSION_FLAGS)" -o bin/nesim ./cmd/nesim
	@cp eif/pack/programs/hello bin/hello

demo: deps build ## an enclave's life from EIF to its end, in a minute or so
	@scenarios/demo.sh

samples: # what the tests alone need: the kernel of `make kernel`, a sample out of its source, and a Chromium for HTML reports
	@qemu/setup/fetch.sh --nitro --conformance --chromium

# Most tests boot enclaves on the kernel of `make kernel`, so the suite's smoke part runs on Debian's. NESIM_KERNEL stays, if set.
ON_DEBIANS_KERNEL = test -n "$$NESIM_KERNEL" || export NESIM_KERNEL=$(NESIM_CACHE)/kernel/vmlinuz NESIM_MODULES=$(NESIM_CACHE)/kernel/modules;

test: deps samples build ## every test, microvms included (needs a C compiler)
	$(GO) test -timeout 20m ./...
	@$(ON_DEBIANS_KERNEL) bin/nesim scenario run --engine qemu --tags smoke --brief

# What only boots guests again, in packages without goroutines of their own or by dozens, is left to `make test`.
BOOTS = HelloEnclave|BootsTheEnclave|InAnEnclave|AnELFKernelBoots|AnyMemorySize|ClockRunsAsTheHosts

race: deps samples build ## the tests under the race detector, without those that only boot guests (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 30m -skip '$(BOOTS)' ./...

bench: deps build ## the benchmarks
	$(GO) test -timeout 30m -run '^$$' -bench . ./...

FUZZTIME ?= 10s

fuzz: programs ## every fuzz target for FUZZTIME, until one fails
	@GO=$(GO) .ci/fuzz $(FUZZTIME)

lint: programs ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

print-version-flags:
	@echo "$(VERSION_FLAGS)"

clean: ## remove what was built (.cache stays)
	rm -rf bin eif/pack/programs/init eif/pack/programs/hello sim/primary/programs/parentinit
