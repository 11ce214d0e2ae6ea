# shellcheck shell=bash
# Builds the machine in which cloud-hypervisor runs, and boots it in QEMU. Sourced after common.sh and processes.sh.
#
# QEMU emulates a processor with SVM, so that the machine has /dev/kvm without the host having one.

MACHINE_DIR=$ROOT/target/cloud-hypervisor
# The machine's disk, as a directory and as an image.
MACHINE_ROOT=$MACHINE_DIR/root
MACHINE_DISK=$MACHINE_DIR/disk.img
MACHINE_CONSOLE=$MACHINE_DIR/console
MACHINE_PID=''

# put_program FILE DIRECTORY: with its libraries, without what is for debuggers.
put_program() {
    local library to=$MACHINE_ROOT$2/${1##*/}
    strip -o "$to" "$1" 2>/dev/null || cp -L "$1" "$to"
    chmod 0755 "$to"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [[ -e $MACHINE_ROOT$library ]] || install -D "$(readlink -f "$library")" "$MACHINE_ROOT$library"
    done
}

# machine_build DIRECTORY: with cloud-hypervisor from there, and the host's bash. Everything else that scripts need is busybox's.
machine_build() {
    local program stage=$MACHINE_DIR/initramfs.d
    rm -rf "$MACHINE_DIR"
    mkdir -p "$stage"/{bin,dev,proc,root,sys} \
        "$MACHINE_ROOT"/{bin,dev,etc,guest,out,proc,root,scripts,sys,target/release,tmp,var/tmp}
    cp "$GUEST_DIR/nested/busybox" "$stage/bin/"
    cp -r "$GUEST_DIR/nested/modules" "$stage/"
    cp "$ROOT/scripts/lib/cloud-hypervisor/init" "$stage/"
    (cd "$stage" && find . | bin/busybox cpio -o -H newc 2>/dev/null) >"$MACHINE_DIR/initramfs"

    cp "$GUEST_DIR/nested/busybox" "$MACHINE_ROOT/bin/"
    for program in bash install; do put_program "$(readlink -f "$(command -v "$program")")" /bin; done
    for program in cloud-hypervisor ch-remote; do put_program "$1/$program" /bin; done
    for program in sealblk sealblk-kms sealctl; do put_program "$ROOT/target/release/$program" /target/release; done
    cp -r "$ROOT/scripts/lib" "$MACHINE_ROOT/scripts/"
    cp "$GUEST_DIR/nested/vmlinux" "$MACHINE_ROOT/guest/"
    # Emulated processors take long to unpack it.
    gzip -dc "$GUEST_DIR/initramfs.cpio.gz" >"$MACHINE_ROOT/guest/initramfs"
    truncate -s 3G "$MACHINE_DISK"
    mke2fs -q -F -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard -d "$MACHINE_ROOT" "$MACHINE_DISK"
    rm -rf "$stage" "$MACHINE_ROOT"
}

# machine_run SECONDS TRIAL…: boots the machine, shows its console until it ends or the time is over.
# One processor: with two, the kernel has panicked under QEMU 7.2. Its guests have two in any case.
machine_run() {
    local limit=$1
    shift
    : >"$MACHINE_CONSOLE"
    timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi,tb-size=1024 -cpu EPYC,+svm,+npt -smp 1 -m 4G -machine q35 \
        -nodefaults -display none -no-reboot -serial "file:$MACHINE_CONSOLE" \
        -drive "file=$MACHINE_DISK,format=raw,if=virtio,cache=unsafe,discard=unmap" \
        -kernel "$GUEST_DIR/vmlinuz" -initrd "$MACHINE_DIR/initramfs" \
        -append "console=ttyS0 panic=-1 no_timer_check loglevel=4 mitigations=off nokaslr sealblk.trials=$(IFS=,; echo "$*")" \
        </dev/null >"$MACHINE_DIR/qemu.log" 2>&1 &
    MACHINE_PID=$!
    tail -n +1 -f --pid="$MACHINE_PID" "$MACHINE_CONSOLE" | sed -u -e 's/\r//g' -e '/^$/d'
    wait "$MACHINE_PID" || note "QEMU ended with status $? (124: after $limit s)"
    MACHINE_PID=''
}

# Whether the trials came to an end, and whether all succeeded.
machine_finished() { grep -a -q '^MACHINE: status' "$MACHINE_CONSOLE"; }
machine_succeeded() { grep -a -q $'^MACHINE: status 0\r*$' "$MACHINE_CONSOLE"; }

# Takes the logs from the disk, which goes.
machine_logs() {
    (cd "$MACHINE_DIR" && debugfs -R 'rdump /out .' "$MACHINE_DISK" 2>/dev/null) || note 'the logs cannot be read'
    rm -f "$MACHINE_DISK" "$MACHINE_DIR/initramfs"
}
