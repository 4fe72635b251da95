#!/bin/bash
# Builds the enclave kernel: shaped as AWS's, with the options of nitro.config built in, for machines with and without
# ACPI. The same source, options and compiler give the same bytes.
#
# It needs gcc, make and xz. ../setup/fetch.sh --nitro fetches the rest and calls it.
#
# usage: build.sh SOURCE TOOLS OUT
#
#   SOURCE  the kernel's source, as Debian's package linux-source has it (linux-source-6.12.tar.xz)
#   TOOLS   folder into which Debian's flex, bison, m4, libelf-dev and zlib1g-dev are unpacked, and bin/bc
#   OUT     folder, made here, that gets vmlinuz, config and release
#
# The source is unpacked below OUT and deleted; what make has to say is in OUT.log while the build fails.
set -euo pipefail
umask 022

fail() { printf 'nesim: %s\n' "$*" >&2; exit 1; }

# What the configuration never reaches is not unpacked, but for the Kconfig and make files: two thirds of the source.
readonly LEFT_OUT='arch/[!x]*/*.[chS] arch/[!x]*/*.dts* Documentation/*.rst drivers/gpu/*.[ch] drivers/infiniband/*.[ch] drivers/media/*.[ch]
	drivers/net/ethernet/*.[ch] drivers/net/wireless/*.[ch] drivers/scsi/*.[ch] drivers/staging/*.[ch] fs/xfs/*.[ch]
	sound/*.[ch] tools/perf/*.[ch] tools/testing/*.[ch]'

main() {
	[ $# -eq 3 ] || fail "usage: build.sh SOURCE TOOLS OUT"
	local here; here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
	CONFIG=$here/nitro.config
	mkdir "$3"
	TOOLS=$(cd "$2" && pwd -P) OUT=$(cd "$3" && pwd -P)
	LOG=$OUT.log
	unpack "$1"
	cd "$OUT/linux"
	run allnoconfig "KCONFIG_ALLCONFIG=$CONFIG"
	check_options
	run -j"$(nproc)" bzImage
	cp arch/x86/boot/bzImage "$OUT/vmlinuz"
	cp .config "$OUT/config"
	cp include/config/kernel.release "$OUT/release"
	cd /
	rm -rf "$OUT/linux" "$LOG"
}

unpack() {
	local pattern without=()
	set -f
	for pattern in $LEFT_OUT; do without+=("--exclude=*/$pattern"); done
	set +f
	mkdir "$OUT/linux"
	XZ_OPT=-T0 tar -xJf "$1" -C "$OUT/linux" --strip-components=1 "${without[@]}" || fail "cannot unpack $1"
}

# run MAKE-ARGS... runs the kernel's make with nothing of the caller's environment. KBUILD_BUILD_* and the version are
# what the kernel says of its making.
run() {
	local lib=$TOOLS/usr/lib/x86_64-linux-gnu
	env -i PATH="$TOOLS/bin:$TOOLS/usr/bin:$PATH" LC_ALL=C TZ=UTC M4="$TOOLS/usr/bin/m4" BISON_PKGDATADIR="$TOOLS/usr/share/bison" \
		KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=nesim KBUILD_BUILD_HOST=nesim KBUILD_BUILD_VERSION=1 \
		make -s ARCH=x86 LIBELF_FLAGS="-I$TOOLS/usr/include" LIBELF_LIBS="$lib/libelf.a $lib/libz.a" "$@" >>"$LOG" 2>&1 ||
		fail "the enclave kernel does not build: $(grep -m 1 -iE "error|can't|\*\*\*" "$LOG" || tail -n 1 "$LOG") (more in $LOG)"
}

# check_options fails, naming them, when options did not take: this source does not know them, or they need others.
check_options() {
	local lost; lost=$(grep '^CONFIG_' "$CONFIG" | grep -vxFf .config || true)
	[ -z "$lost" ] || fail "the enclave kernel's options in $CONFIG that did not take:" $lost
}

main "$@"
