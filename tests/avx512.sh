#!/usr/bin/env bash
# The paths of AVX-512 on a machine that has none: a Linux kernel boots in Bochs, an emulator of a processor that has it, and there the tests that hold instruction
# sets against each other run on the release library. Not part of `make test`: minutes, and a kernel from Debian (`KERNEL=path/of/vmlinuz` for another).
set -euo pipefail
cd "$(dirname "$0")/.."
work=target/avx512
limit=${LIMIT:-1500}
missing() {
    echo "avx512: $1" >&2
    exit 1
}
grep -qw avx512vl /proc/cpuinfo && echo "avx512: this processor has AVX-512, so \`make test\` runs these paths as well"
for file in /usr/bin/bochs-bin /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 /usr/bin/genisoimage /usr/bin/cpio /usr/bin/busybox; do
    [ -e "$file" ] || [ -e "${file#/usr}" ] || missing "${file##*/} is missing: sudo apt-get install --no-install-recommends bochs bochsbios vgabios isolinux syslinux-common genisoimage cpio busybox-static"
done
ldd "$(command -v busybox)" >/dev/null 2>&1 && missing "busybox asks for libraries: sudo apt-get install busybox-static"
rm -rf $work/root $work/iso
mkdir -p $work/root/{bin,proc,lib64,tmp} $work/iso
if [ -z "${KERNEL:-}" ]; then
    KERNEL=$(ls $work/kernel/boot/vmlinuz-* 2>/dev/null | head -1 || true)
    if [ -z "$KERNEL" ]; then
        package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}')
        [ -n "$package" ] || missing "apt knows no linux-image-cloud-amd64; give a kernel that can print to a serial port: KERNEL=path/of/vmlinuz"
        (cd $work && apt-get -qq download "$package" && dpkg -x "$package"_*.deb kernel)
        KERNEL=$(ls $work/kernel/boot/vmlinuz-* | head -1)
    fi
fi

cargo=${CARGO:-cargo}
$cargo build --release --locked
# The program of a test, by its name: the newest, as cargo has just built it.
program() {
    $cargo test --locked --no-run --message-format=json "$@" 2>/dev/null | grep -o '"executable":"[^"]*"' | tail -1 | cut -d'"' -f4
}
strip -o $work/root/libpassrl.so target/release/libpassrl.so
strip -o $work/root/lib-tests "$(program --lib)"
strip -o $work/root/accuracy "$(program --test accuracy)"
strip -o $work/root/properties "$(program --test properties)"
mkdir -p "$work/root$PWD/tests/cases"
cp tests/cases/hashes.txt "$work/root$PWD/tests/cases/"
cp "$(command -v busybox)" $work/root/bin/busybox
cp /lib64/ld-linux-x86-64.so.2 $work/root/lib64/
for library in $(ldd $work/root/{libpassrl.so,lib-tests,accuracy,properties} | awk '$2 == "=>" {print $3}' | sort -u); do
    cp "$library" $work/root/lib64/
done
cat >$work/root/init <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
exec 2>&1
export PASSRL_LIBRARY=/libpassrl.so LD_LIBRARY_PATH=/lib64 PASSRL_BATCHES=300
run() { echo "RUN $*"; "$@" --test-threads 1 && echo "PASSED $1" || echo "FAILED $1"; }
/bin/busybox grep -o -m1 -w avx512vl /proc/cpuinfo || echo "FAILED: the guest has no AVX-512"
run /lib-tests by_token
run /properties --exact instruction_sets
run /accuracy --exact bits_are_those_of_this_numerics_version
echo "END"
/bin/busybox sleep 3600
END
chmod +x $work/root/init
(cd $work/root && find . | cpio -o -H newc --quiet) >$work/iso/initrd.img
cp "$KERNEL" $work/iso/vmlinuz
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 $work/iso/
# 321, 323: XSAVEC and XSAVES, of which Bochs 2.7 tells a wrong size; a kernel that reads it leaves AVX-512 off.
cat >$work/iso/isolinux.cfg <<'END'
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL vmlinuz
 INITRD initrd.img
 APPEND console=ttyS0 loglevel=3 nokaslr tsc=reliable clearcpuid=321,323 nosmp mitigations=off noapic nolapic acpi=off
END
genisoimage -quiet -o $work/boot.iso -b isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table $work/iso
cat >$work/bochsrc <<END
plugin_ctrl: unmapped=0, biosdev=0, speaker=0, extfpuirq=0, parallel=0, iodebug=0
config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial.txt
log: $work/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
END
# Debian's Bochs begins in its debugger: "continue".
echo c >$work/continue
rm -f $work/serial.txt
bochs-bin -q -f $work/bochsrc -rc $work/continue </dev/null >$work/bochs.txt 2>&1 &
guest=$!
trap 'kill -9 $guest 2>/dev/null || true' EXIT
begin=$SECONDS
until grep -q '^END' $work/serial.txt 2>/dev/null; do
    kill -0 $guest 2>/dev/null || missing "Bochs ended before the tests did; see $work/bochs.txt, $work/serial.txt"
    [ $((SECONDS - begin)) -lt "$limit" ] || missing "the guest was not done in $limit s (LIMIT=seconds for more); see $work/serial.txt"
    sleep 1
done
tr -d '\r' <$work/serial.txt | grep -E '^(RUN|PASSED|FAILED|test |SKIPPED|avx512vl)' || true
echo "avx512: done in $((SECONDS - begin)) s"
! tr -d '\r' <$work/serial.txt | grep -qE '^(FAILED|SKIPPED)'
