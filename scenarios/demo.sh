#!/bin/sh
# An enclave's life: built as an EIF, run through the NE PCI device, heard, talked to, attested, crashed, and gone.
# `make demo` runs it. It needs bin/nesim and bin/hello, and leaves nothing behind but its EIF.
set -eu
cd "$(dirname "$0")/.."
nesim=$PWD/bin/nesim
work=${NESIM_CACHE:-$PWD/.cache}/demo

NESIM_DIR=$(mktemp -d "${TMPDIR:-/tmp}/nesim-demo.XXXXXX")
XDG_DATA_HOME=$work/data
export NESIM_DIR XDG_DATA_HOME
end() {
	"$nesim" shutdown || true
	rm -rf "$NESIM_DIR"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*" | sed "s|$nesim|nesim|g; s|$PWD/||g"; "$@"; }
field() { sed -nE "s/^ *\"$1\": \"?([^\",]*)\"?,?\$/\1/p"; }

step "1. Build an enclave image from a folder"
rm -rf "$work"
mkdir -p "$work/hello"
cp bin/hello "$work/hello/hello"
echo /hello >"$work/hello/cmd"
echo GREETING=hello >"$work/hello/env"
show "$nesim" build-enclave --rootfs "$work/hello" --output-file "$work/hello.eif"

step "2. Run it in debug mode: loaded through the PCI device, booted by QEMU, heard by its heartbeat"
show "$nesim" run-enclave --eif-path "$work/hello.eif" --cpu-count 2 --memory 512 --enclave-cid 16 --debug-mode

step "3. Describe the running enclaves"
show "$nesim" describe-enclaves

step "4. Read its console"
printf '$ nesim console --enclave-name hello\n'
"$nesim" console --enclave-name hello --disconnect-timeout 3 | tail -n 5

step "5. Talk to it over vsock: CID 16, port 5005 echoes"
printf '$ echo "is anybody there?" | nesim vsock dial --wait 16 5005\n'
answer=$(echo "is anybody there?" | "$nesim" vsock dial --wait 16 5005)
echo "$answer"
test "$answer" = "is anybody there?"

step "6. Ask its Nitro Secure Module for an attestation document, and verify it"
nonce=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
printf '$ echo attest %s | nesim vsock dial 16 5006 >document\n' "$nonce"
echo "attest $nonce" | "$nesim" vsock dial 16 5006 >"$work/document"
printf '$ nesim attest verify document --nonce %s\n' "$nonce"
"$nesim" attest verify "$work/document" --nonce "$nonce" >"$work/document.json"
printf 'verified: signed for %s at %s; in debug mode its image is not attested: PCR0 is %.8s...\n' \
	"$(field module_id <"$work/document.json")" "$(field timestamp <"$work/document.json")" "$(field 0 <"$work/document.json")"

step "7. Crash its kernel, and see the parent's descriptor hang up"
"$nesim" wait-enclave --enclave-name hello >"$work/ending" &
waiter=$!
printf '$ echo panic | nesim vsock dial --wait 16 5006\n'
echo panic | "$nesim" vsock dial --wait 16 5006 || true
wait "$waiter"
cat "$work/ending"
printf 'From the end of the machine to the hang-up: %s microseconds\n' "$(field HangUpMicros <"$work/ending")"

step "8. Nothing is left running"
show "$nesim" describe-enclaves
"$nesim" shutdown
left=$(pgrep -f "$NESIM_DIR" || true)
test -z "$left" || { echo "left running: $left"; exit 1; }
test -z "$(find "$NESIM_DIR" -type s)" || { echo "sockets left in $NESIM_DIR"; exit 1; }
echo "no enclave, no process, no socket"
