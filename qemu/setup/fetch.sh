#!/bin/bash
# Fetches what an enclave's virtual machine is made of, once, without root and without touching the system:
#
#   CACHE/qemu/qemu-system-x86_64   QEMU with its own libraries and firmware (Debian forky's build)
#   CACHE/kernel/vmlinuz            an enclave kernel (Debian trixie's cloud kernel), and beside it
#   CACHE/kernel/{release,config}   its release and configuration, and
#   CACHE/kernel/modules/           the modules an enclave or its parent needs, with a modules.dep
#
# and, where asked for,
#
#   CACHE/busybox/busybox           --parent: the primary VM's shell and tools (Debian trixie's busybox-static)
#   CACHE/nitro/vmlinuz             --nitro: an enclave kernel shaped as AWS's, built here of Debian trixie's linux-source
#                                   with the options of ../kernel/nitro.config (needs gcc and make), and beside it
#   CACHE/nitro/{release,config}    its release and configuration
#   CACHE/sample/ne_ioctl_sample.c  --conformance: a program for the NE driver, out of Debian trixie's linux-source
#   CACHE/chromium/chromium         --chromium: a browser for the tests of HTML reports, with its own libraries and a
#                                   font but the system's libc (Debian bookworm's build)
#
# usage: fetch.sh [--parent] [--nitro] [--conformance] [--chromium] [CACHE]
#
# CACHE is $NESIM_CACHE, or .cache at the top of this checkout.
#
#   NESIM_QEMU     a QEMU to use as it is (>= 10.2); one that is good enough on PATH is found by itself
#   NESIM_KERNEL   a kernel to use as it is, and NESIM_MODULES its modules folder
#   NESIM_CHROMIUM a Chromium to use as it is; one on PATH is found by itself
#   NESIM_MIRROR   a Debian mirror to fetch from, where apt on this machine knows none
#   NESIM_KEYRING  a Debian archive keyring, where the package debian-archive-keyring is not installed
#
# Packages are fetched by name through this machine's apt: its mirror, proxy and passwords, but with package lists
# and archives of our own under CACHE/apt. Every list is checked against the Debian archive keyring.
set -euo pipefail
umask 022

readonly RECIPE=1            # raise it when what is unpacked, or how it is laid out, changes
readonly MIN_QEMU=10.2
readonly QEMU_DEVICES='vhost-user-vsock-device vhost-user-test-device'
readonly QEMU_SUITE=forky QEMU_PACKAGE=qemu-system-x86
readonly KERNEL_SUITE=trixie KERNEL_PACKAGE=linux-image-cloud-amd64
readonly BUSYBOX_PACKAGE=busybox-static SOURCE_PACKAGE=linux-source
# What builds the kernel, for a system as old as bookworm or newer. objtool is linked with libelf and zlib.
readonly BUILD_SUITE=bookworm BUILD_PACKAGES='flex bison m4 libelf-dev zlib1g-dev'
readonly CHROMIUM_SUITE=bookworm CHROMIUM_PACKAGES='chromium fonts-dejavu-core libnss3'
# What Chromium's packages ask for and no headless one uses; and libc, which is the system's.
readonly CHROMIUM_WITHOUT='libc6 perl perl-base x11-utils xdg-utils systemd systemd-sysv adwaita-icon-theme'
readonly SAMPLE=samples/nitro_enclaves/ne_ioctl_sample.c
# What an enclave loads at its start (vsock and NSM over virtio-mmio, a KVM host's clock), and what a primary VM loads
# (the NE driver, pvpanic). What an enclave loads on demand is in features.modules.
readonly MODULES='virtio_mmio vsock vmw_vsock_virtio_transport nsm ptp_kvm nitro_enclaves pvpanic-mmio pvpanic-pci'

say()  { printf 'nesim: %s\n' "$*"; }
fail() { printf 'nesim: %s\n' "$*" >&2; exit 1; }

main() {
	HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
	local part need='' parts='qemu kernel'
	while [[ ${1:-} == --* ]]; do
		case $1 in
		--parent) parts="$parts busybox" ;;
		--nitro) parts="$parts busybox nitro" ;;
		--conformance) parts="$parts sample" ;;
		--chromium) parts="$parts chromium" ;;
		*) fail "unknown option $1: see the top of $HERE/fetch.sh" ;;
		esac
		shift
	done
	CACHE=${1:-${NESIM_CACHE:-$HERE/../../.cache}}
	mkdir -p "$CACHE" || fail "cannot make the folder $CACHE; set NESIM_CACHE to one that you may write"
	CACHE=$(cd "$CACHE" && pwd -P)

	for part in $parts; do ! "want_$part" || need="$need $part"; done
	[ -n "$need" ] || return 0

	lock
	TMP=$CACHE/tmp
	rm -rf "$TMP"        # what an interrupted run left; its downloads, under CACHE/apt, are kept and used
	mkdir -p "$TMP"
	for part in $need; do
		in_place "$part" || { check_tools; "fetch_$part"; }
	done
	rm -rf "$TMP" "$CACHE/apt"
}

# lock waits until no other run works on CACHE. The descriptor goes to all children, so that what an interrupted
# run left running ends before we start.
lock() {
	command -v flock >/dev/null || fail "flock is missing: install the package util-linux"
	exec 9>"$CACHE/lock"
	flock -n 9 && return
	say "another set-up is at work in $CACHE; waiting for it"
	flock 9
}

in_place() { [ "$(cat "$CACHE/$1/recipe" 2>/dev/null)" = "$(recipe "$1")" ]; }

# recipe PART prints what PART is made by: when it changes, PART is made anew.
recipe() {
	case $1 in
	kernel) echo "$RECIPE $(cksum <"$HERE/features.modules")" ;;
	nitro) echo "$RECIPE $(cat "$HERE"/../kernel/{build.sh,nitro.config} | cksum)" ;;
	*) echo "$RECIPE" ;;
	esac
}

# put_in_place NAME moves TMP/NAME to CACHE/NAME in one step, so that what is there is always whole.
put_in_place() {
	recipe "$1" >"$TMP/$1/recipe"
	[ ! -e "$CACHE/$1" ] || mv -T "$CACHE/$1" "$TMP/$1.old"
	mv -T "$TMP/$1" "$CACHE/$1"
}

want_qemu() {
	local own
	if [ -n "${NESIM_QEMU:-}" ]; then
		suitable "$NESIM_QEMU" || fail "NESIM_QEMU=$NESIM_QEMU is no QEMU >= $MIN_QEMU with $QEMU_DEVICES"
		say "using your QEMU: $NESIM_QEMU"
		return 1
	fi
	if own=$(command -v qemu-system-x86_64) && suitable "$own"; then
		say "using the QEMU on PATH: $own"
		return 1
	fi
	! in_place qemu
}

# suitable QEMU succeeds when it is new enough and has the devices that nesim cannot do without.
suitable() {
	local version devices device
	version=$("$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p') || return 1
	[ -n "$version" ] && printf '%s\n' "$MIN_QEMU" "$version" | sort -V -C || return 1
	devices=$("$1" -M none -device help 2>/dev/null) || return 1
	for device in $QEMU_DEVICES; do
		grep -q "^name \"$device\"" <<<"$devices" || return 1
	done
}

want_kernel() {
	if [ -n "${NESIM_KERNEL:-}" ]; then
		[ -r "$NESIM_KERNEL" ] || fail "NESIM_KERNEL=$NESIM_KERNEL cannot be read"
		say "using your kernel: $NESIM_KERNEL"
		return 1
	fi
	! in_place kernel
}

want_busybox() { ! in_place busybox; }
want_nitro() { ! in_place nitro; }
want_sample() { ! in_place sample; }

want_chromium() {
	local own
	if [ -n "${NESIM_CHROMIUM:-}" ]; then
		"$NESIM_CHROMIUM" --version >/dev/null 2>&1 || fail "NESIM_CHROMIUM=$NESIM_CHROMIUM does not run"
		say "using your Chromium: $NESIM_CHROMIUM"
		return 1
	fi
	if own=$(command -v chromium || command -v chromium-browser || command -v google-chrome) && "$own" --version >/dev/null 2>&1; then
		say "using the Chromium on PATH: $own"
		return 1
	fi
	! in_place chromium
}

own_parts() {
	echo "or point nesim at your own: NESIM_QEMU (a QEMU >= $MIN_QEMU), NESIM_KERNEL (a vmlinuz with virtio-mmio, vsock" \
		"and NSM) and NESIM_MODULES (its modules folder)"
}

# check_tools sets KEYRING and MIRRORS, or says in one line what is missing and what to do.
check_tools() {
	[ -z "${MIRRORS:-}" ] || return 0
	local tool
	for tool in apt-get apt-cache dpkg-deb; do
		command -v "$tool" >/dev/null || fail "$tool is missing, so Debian's packages cannot be fetched:" \
			"run nesim on Debian, $(own_parts)"
	done
	[ "$(dpkg --print-architecture)" = amd64 ] || fail "only amd64 has parts ready to fetch: $(own_parts)"
	KEYRING=${NESIM_KEYRING:-$(find /usr/share/keyrings -name 'debian-archive-keyring.[gp]*' -print -quit 2>/dev/null || true)}
	[ -r "$KEYRING" ] || fail "the Debian archive keyring is missing: install the package debian-archive-keyring, $(own_parts)"
	MIRRORS=${NESIM_MIRROR:-$(mirrors)}
	[ -n "$MIRRORS" ] || fail "apt on this machine knows no Debian mirror: set NESIM_MIRROR to one's address, $(own_parts)"
}

# mirrors lists the Debian mirrors that this machine's apt is set up with, as apt itself reads its sources.
mirrors() {
	local names='bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing|unstable'
	apt-get update --print-uris 2>/dev/null |
		sed -nE "s#^'([^']*)/dists/($names)/InRelease'.*#\1#p" | awk '!seen[$0]++' || true
}

# use_suite SUITE [PACKAGE...] reads SUITE's package list from the first mirror that has it, signed by Debian. The
# packages named count as installed, so they are not fetched.
use_suite() {
	local mirror package dated=yes
	APT=$CACHE/apt/$1
	LOG=$APT/log
	mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial"
	# forky moves on while a mirror may be frozen in time: only its release file may be past its date.
	[ "$1" != forky ] || dated=no
	write_apt_conf
	for package in "${@:2}"; do
		printf '%s\n' "Package: $package" 'Status: install ok installed' 'Version: 9999' 'Architecture: amd64' \
			'Multi-Arch: foreign' 'Maintainer: none' 'Description: none' ''
	done >"$APT/status"
	say "reading Debian's package list ($1)"
	for mirror in $MIRRORS; do
		echo "deb [arch=amd64 target=Packages check-valid-until=$dated signed-by=$KEYRING] $mirror $1 main" >"$APT/sources.list"
		if run apt-get update; then
			run apt-get autoclean    # of an interrupted run's archives, what the list no longer has
			return
		fi
	done
	fail "apt cannot read Debian's list of $1 packages: $(why)"
}

# write_apt_conf leaves the machine's apt configuration (proxy, passwords, certificates) as it is and moves all that
# apt writes, and its sources, below APT. Hooks that would change the system are taken out.
write_apt_conf() {
	cat >"$APT/apt.conf" <<-EOF
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear APT::Architectures;
		#clear APT::Default-Release;
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Install-Recommends "false";
		APT::Install-Suggests "false";
		APT::Sandbox::User "root";
		APT::Update::Error-Mode "any";
		APT::Get::AllowUnauthenticated "false";
		Acquire::AllowInsecureRepositories "false";
		Acquire::Languages "none";
		Acquire::Retries "3";
		Dir::State "$APT";
		Dir::State::lists "$APT/lists";
		Dir::State::status "$APT/status";
		Dir::Cache "$APT/cache";
		Dir::Cache::archives "archives";
		Dir::Log "$APT";
		Dir::Etc::sourcelist "$APT/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
	EOF
}

# run APT-COMMAND ARGS... runs it quietly below APT; what it says goes to LOG, for why.
run() { "$1" -c "$APT/apt.conf" -qq "${@:2}" >"$LOG" 2>&1; }

# why gives apt's own reason, in one line.
why() {
	if grep -q NO_PUBKEY "$LOG"; then
		echo "its signing key is not in $KEYRING: upgrade the package debian-archive-keyring"
		return
	fi
	local reason; reason=$(grep -m 1 '^E: ' "$LOG" || tail -n 1 "$LOG")
	echo "${reason#E: } (more in $LOG)"
}

fetch_qemu() {
	local start=$SECONDS deb version
	use_suite "$QEMU_SUITE" systemd    # QEMU's services of the host are of no use to us
	version=$(apt-cache -c "$APT/apt.conf" show "$QEMU_PACKAGE" | sed -n 's/^Version: \([0-9]*:\)\?\([0-9.]*\).*/\2/p' | sed -n 1p)
	printf '%s\n' "$MIN_QEMU" "$version" | sort -V -C ||
		fail "this mirror's $QEMU_SUITE has QEMU $version, older than $MIN_QEMU: set NESIM_MIRROR to a newer one, $(own_parts)"
	say "downloading QEMU $version and its libraries (about 40 MB)"
	run apt-get -y --download-only install "$QEMU_PACKAGE" || fail "apt cannot fetch QEMU: $(why)"
	mkdir "$TMP/qemu"
	for deb in "$APT"/cache/archives/*.deb; do
		dpkg-deb -x "$deb" "$TMP/qemu" 2>"$LOG" || fail "cannot unpack ${deb##*/}: $(why)"
	done
	trim_qemu "$TMP/qemu"
	write_wrapper "$TMP/qemu"
	suitable "$TMP/qemu/qemu-system-x86_64" || fail "the QEMU just unpacked in $TMP/qemu does not run"
	put_in_place qemu
	say "QEMU $version is ready in $CACHE/qemu ($(size qemu), $((SECONDS - start)) s)"
}

# trim_qemu removes what no x86 virtual machine of ours reads, and keeps the licences.
trim_qemu() (
	cd "$1"
	rm -rf etc var usr/libexec usr/lib/systemd usr/lib/sysusers.d usr/lib/x86_64-linux-gnu/gconv
	find usr/bin usr/sbin -mindepth 1 ! -name qemu-system-x86_64 -delete 2>/dev/null || true
	find usr/share -mindepth 1 -maxdepth 1 ! -name qemu ! -name seabios ! -name doc -exec rm -rf {} +
	find usr/share/doc ! -type d ! -name copyright -delete
	# QEMU looks for its firmware and modules beside the running program, which is its ld.so (see write_wrapper).
	ln -s ../../.. usr/lib/x86_64-linux-gnu/qemu-bundle
)

# write_wrapper makes the program to start: QEMU under its own dynamic loader and libraries, whatever the host's are.
# exec: the process that is started becomes QEMU.
write_wrapper() {
	cat >"$1/qemu-system-x86_64" <<-'EOF'
		#!/bin/sh
		D=$(CDPATH= cd -P -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
		exec "$D/usr/lib64/ld-linux-x86-64.so.2" --argv0 "$0" --inhibit-cache \
			--library-path "$D/usr/lib/x86_64-linux-gnu" "$D/usr/bin/qemu-system-x86_64" "$@"
	EOF
	chmod 755 "$1/qemu-system-x86_64"
}

fetch_kernel() {
	local start=$SECONDS package release
	use_suite "$KERNEL_SUITE"
	package=$(apt-cache -c "$APT/apt.conf" depends "$KERNEL_PACKAGE" | sed -nE 's/^ *Depends: (linux-image-[0-9].*)$/\1/p' | sed -n 1p)
	[ -n "$package" ] || fail "no kernel found behind the package $KERNEL_PACKAGE"
	release=${package#linux-image-}
	say "downloading the enclave kernel $release (about 35 MB)"
	(cd "$APT/cache/archives" && run apt-get download "$package") || fail "apt cannot fetch the kernel: $(why)"
	dpkg-deb -x "$APT"/cache/archives/linux-image-*.deb "$TMP/deb" 2>"$LOG" || fail "cannot unpack the kernel: $(why)"
	mkdir "$TMP/kernel"
	cp "$TMP/deb/boot/vmlinuz-$release" "$TMP/kernel/vmlinuz"
	cp "$TMP/deb/boot/config-$release" "$TMP/kernel/config"
	echo "$release" >"$TMP/kernel/release"
	pick_modules "$TMP/deb/usr/lib/modules/$release" "$TMP/kernel/modules"
	put_in_place kernel
	say "kernel $release is ready in $CACHE/kernel ($(size kernel), $((SECONDS - start)) s)"
}

fetch_busybox() {
	use_suite "$KERNEL_SUITE"
	say "downloading busybox (about 1 MB)"
	(cd "$APT/cache/archives" && run apt-get download "$BUSYBOX_PACKAGE") || fail "apt cannot fetch busybox: $(why)"
	dpkg-deb -x "$APT/cache/archives/$BUSYBOX_PACKAGE"_*.deb "$TMP/deb-busybox" 2>"$LOG" || fail "cannot unpack busybox: $(why)"
	mkdir "$TMP/busybox"
	cp "$TMP"/deb-busybox/usr/bin/busybox "$TMP/deb-busybox/usr/share/doc/$BUSYBOX_PACKAGE/copyright" "$TMP/busybox"
	put_in_place busybox
	say "busybox is ready in $CACHE/busybox ($(size busybox))"
}

# fetch_nitro builds the enclave kernel. Its source stays for fetch_sample.
fetch_nitro() {
	local start=$SECONDS deb
	check_compiler
	fetch_source
	use_suite "$BUILD_SUITE"
	say "downloading the tools to build a kernel with (about 3 MB)"
	# shellcheck disable=SC2086 # a list of packages
	(cd "$APT/cache/archives" && run apt-get download $BUILD_PACKAGES) || fail "apt cannot fetch $BUILD_PACKAGES: $(why)"
	for deb in "$APT"/cache/archives/*.deb; do
		dpkg-deb -x "$deb" "$TMP/build" 2>"$LOG" || fail "cannot unpack ${deb##*/}: $(why)"
	done
	mkdir "$TMP/build/bin"
	ln -s "$CACHE/busybox/busybox" "$TMP/build/bin/bc"
	say "building the enclave kernel (some minutes)"
	"$HERE/../kernel/build.sh" "$SOURCE" "$TMP/build" "$TMP/nitro"
	rm -rf "$TMP/build"
	put_in_place nitro
	say "kernel $(cat "$CACHE/nitro/release") is ready in $CACHE/nitro ($(size nitro), $((SECONDS - start)) s)"
}

check_compiler() {
	local tool
	for tool in gcc make xz; do
		command -v "$tool" >/dev/null || fail "$tool is missing, which the enclave kernel is built with:" \
			"install the packages gcc, libc6-dev, make and xz-utils"
	done
	gcc -x c -o "$TMP/compiled" - <<<'#include <stdlib.h>
		int main(void) { return 0; }' 2>/dev/null ||
		fail "gcc cannot build a program for this machine, as the enclave kernel needs: install the package libc6-dev"
}

# fetch_sample takes one file out of the kernel's source, as the kernel's package has it.
fetch_sample() {
	local start=$SECONDS
	fetch_source
	mkdir "$TMP/sample"
	tar -xJOf "$SOURCE" --wildcards "*/$SAMPLE" >"$TMP/sample/${SAMPLE##*/}" 2>"$LOG" || fail "cannot unpack $SOURCE: $(why)"
	put_in_place sample
	say "$SAMPLE is ready in $CACHE/sample ($((SECONDS - start)) s)"
}

# fetch_source sets SOURCE to the archive of the kernel's source, downloaded once a run.
fetch_source() {
	local package
	[ -z "${SOURCE:-}" ] || return 0
	use_suite "$KERNEL_SUITE"
	package=$(apt-cache -c "$APT/apt.conf" depends "$SOURCE_PACKAGE" | sed -nE 's/^ *Depends: (linux-source-[0-9].*)$/\1/p' | sed -n 1p)
	[ -n "$package" ] || fail "no source found behind the package $SOURCE_PACKAGE"
	say "downloading the kernel's source, $package (about 150 MB)"
	(cd "$APT/cache/archives" && run apt-get download "$package") || fail "apt cannot fetch $package: $(why)"
	dpkg-deb -x "$APT"/cache/archives/linux-source-*.deb "$TMP/source" 2>"$LOG" || fail "cannot unpack $package: $(why)"
	SOURCE=$(find "$TMP/source/usr/src" -name 'linux-source-*.tar.xz' -print -quit)
	[ -n "$SOURCE" ] || fail "$package has no source in it"
}

fetch_chromium() {
	local start=$SECONDS deb
	# shellcheck disable=SC2086 # lists of packages
	use_suite "$CHROMIUM_SUITE" $CHROMIUM_WITHOUT
	say "downloading Chromium and its libraries (about 145 MB)"
	# shellcheck disable=SC2086
	run apt-get -y --download-only install $CHROMIUM_PACKAGES || fail "apt cannot fetch Chromium: $(why)"
	for deb in "$APT"/cache/archives/*.deb; do
		dpkg-deb -x "$deb" "$TMP/deb-chromium" 2>"$LOG" || fail "cannot unpack ${deb##*/}: $(why)"
	done
	pick_chromium "$TMP/deb-chromium" "$TMP/chromium"
	"$TMP/chromium/chromium" --version >/dev/null 2>"$LOG" || fail "the Chromium just unpacked in $TMP/chromium does not run: $(why)"
	put_in_place chromium
	say "Chromium is ready in $CACHE/chromium ($(size chromium), $((SECONDS - start)) s)"
}

# pick_chromium FROM TO takes the browser, the libraries that it is linked with or opens itself (NSS's), a font, the
# licences, and writes the program to start. libc is not among FROM's libraries: the system's goes with its ld.so.
pick_chromium() {
	local lib=$1/usr/lib/x86_64-linux-gnu path
	path=$lib:$lib/pulseaudio:$1/lib/x86_64-linux-gnu
	mkdir -p "$2/lib" "$2/fonts" "$2/doc"
	cp -r "$1/usr/lib/chromium" "$2/program"
	find "$2/program" \( -name '*.TOC' -o -name 'libVkLayer*' -o -path '*/locales/*' ! -name en-US.pak \) -delete
	cp "$lib"/lib{softokn3,freebl3,freeblpriv3,nssckbi}.so "$2/lib"
	LD_LIBRARY_PATH=$path ldd "$2"/program/{chromium,*.so} "$2"/lib/* | sed -nE 's/.* => ([^ ]+) \(.*/\1/p' | sort -u |
		while read -r path; do [[ $path != "$1"/* ]] || cp -L "$path" "$2/lib"; done
	cp "$1"/usr/share/fonts/truetype/dejavu/DejaVuSans{,-Bold,Mono,Mono-Bold}.ttf "$2/fonts"
	(cd "$1/usr/share/doc" && find -L . -name copyright -exec cp -L --parents {} "$2/doc" \;)
	cat >"$2/fonts/fonts.conf" <<-'EOF'
		<?xml version="1.0"?>
		<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
		<fontconfig>
			<dir prefix="relative">.</dir>
			<cachedir prefix="xdg">fontconfig</cachedir>
			<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
			<alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
		</fontconfig>
	EOF
	cat >"$2/chromium" <<-'EOF'
		#!/bin/sh
		D=$(CDPATH= cd -P -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
		export LD_LIBRARY_PATH="$D/lib" FONTCONFIG_FILE="$D/fonts/fonts.conf"
		exec "$D/program/chromium" "$@"
	EOF
	chmod 755 "$2/chromium"
}

# pick_modules FROM TO copies MODULES and what they need, unpacked, and writes TO/modules.dep as depmod would:
# each line a module and, after the colon, all that must be loaded before it, the first one last.
pick_modules() {
	local name need line
	mkdir -p "$2"
	declare -A NEEDS=()
	for name in $MODULES $(sed 's/#.*//' "$HERE/features.modules"); do pick_module "$1" "$2" "$name"; done
	for name in "${!NEEDS[@]}"; do
		line=''
		for need in ${NEEDS[$name]}; do line=" $need.ko$line"; done
		echo "$name.ko:$line"
	done | LC_ALL=C sort >"$2/modules.dep"
}

# pick_module FROM TO NAME copies NAME and those it needs, and sets NEEDS[NAME] to them in the order of loading.
# A module that is not there is built in, or unknown to this kernel.
pick_module() {
	local name=${3//-/_} file need first needs=''
	[ -z "${NEEDS[$name]+set}" ] || return 0
	file=$(find "$1" -name "${name//_/[-_]}.ko*" -print -quit)
	[ -n "$file" ] || return 0
	/usr/lib/apt/apt-helper cat-file "$file" >"$2/$name.ko"
	NEEDS[$name]=''
	for need in $(tr '\0' '\n' <"$2/$name.ko" | sed -n 's/^depends=//p' | tr ',-' ' _'); do
		pick_module "$1" "$2" "$need"
		for first in ${NEEDS[$need]-} "$need"; do
			case " $needs " in *" $first "*) ;; *) needs="$needs $first" ;; esac
		done
	done
	NEEDS[$name]=$needs
}

size() { du -sh "$CACHE/$1" | cut -f 1; }

main "$@"
