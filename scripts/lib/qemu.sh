# shellcheck shell=bash
# Boots the guest in QEMU and reads what it reports. Sourced after common.sh and processes.sh.
#
# guest_start leaves GUEST_PID and GUEST_CONSOLE; guest_wait follows the guest to its end.

# Seconds until a kernel must have printed something under KVM, and until it must have finished.
KVM_FIRST_BYTE=8
KVM_END=30
# Milliseconds that a guest's job may take.
GUEST_TIMEOUT=240000

# Queues that guest_start gives each disk; none: as many as QEMU thinks. Whatever else it gives them begins with a comma.
GUEST_QUEUES=2
GUEST_DISK_OPTIONS=''
GUEST_MEMORY=512M
# Another one than that of scripts/guest-image.
GUEST_INITRAMFS=''

DISK_ARGUMENTS=()
GUEST_PID=''
GUEST_CONSOLE=''

# QEMU with the arguments common to all guests; more may be given. Replaces the shell. With no kernel parameters there is no
# kernel either: the firmware boots from the first disk.
# no_timer_check: on a busy host an emulated timer may be late, and the kernel would give up on it.
# shellcheck disable=SC2153 # common.sh sets GUEST_DIR
qemu_exec() {
    local accelerator=$1 console=$2 append=$3
    shift 3
    local -a cpu=(-accel "tcg,thread=multi") kernel=()
    [[ $accelerator != kvm ]] || cpu=(-accel kvm -cpu host)
    [[ -z $append ]] || kernel=(-kernel "$GUEST_DIR/vmlinuz" -initrd "${GUEST_INITRAMFS:-$GUEST_DIR/initramfs.cpio.gz}"
        -append "console=ttyS0 panic=-1 no_timer_check $append")
    exec qemu-system-x86_64 "${cpu[@]}" -smp 2 -m "$GUEST_MEMORY" \
        -machine q35,memory-backend=mem -object "memory-backend-memfd,id=mem,size=$GUEST_MEMORY,share=on" \
        -nodefaults -display none -no-reboot -serial "file:$console" "${kernel[@]}" "$@" </dev/null
}

# Such as 10.0.13.
qemu_version() { qemu-system-x86_64 --version | sed -nE '1s/.* version ([0-9.]+).*/\1/p'; }

# qemu_at_least MAJOR.MINOR
qemu_at_least() { printf '%s\n' "$1" "$(qemu_version)" | sort -C -V; }

# How a chardev is told to connect again: by the only way until 9.1, by the only one from 10.2.
reconnect_option() { if qemu_at_least 9.2; then echo reconnect-ms=1000; else echo reconnect=1; fi; }

# Whether a guest really boots under KVM. A /dev/kvm that opens proves nothing: there are machines
# (virtual themselves) where the guest's first instruction never ends. Sets PROBE to the reason if not.
kvm_boots() {
    local console=$GUEST_DIR/probe.console pid start=$SECONDS
    [[ -e /dev/kvm ]] || { PROBE='there is no /dev/kvm'; return 1; }
    [[ -r /dev/kvm && -w /dev/kvm ]] || { PROBE='/dev/kvm may not be opened'; return 1; }
    : >"$console"
    (qemu_exec kvm "$console" 'sealblk.job=hello') >"$GUEST_DIR/probe.log" 2>&1 &
    pid=$!
    PROBE="under KVM a guest did not finish within $KVM_END s"
    while running "$pid" && ((SECONDS - start < KVM_END)); do
        if [[ ! -s $console ]] && ((SECONDS - start >= KVM_FIRST_BYTE)); then
            PROBE="/dev/kvm opens, but under it a guest's kernel printed nothing for $KVM_FIRST_BYTE s"
            break
        fi
        sleep 0.1
    done
    if ! running "$pid" && [[ -s $GUEST_DIR/probe.log ]]; then
        PROBE="QEMU says: $(tail -n 1 "$GUEST_DIR/probe.log")"
    fi
    end_process "$pid"
    grep -q -a '^GUEST: end' "$console"
}

# Sets ACCELERATOR to kvm or tcg and says why. The verdict holds until the host boots again, or QEMU or
# the guest image changes. SEALBLK_ACCEL=kvm|tcg decides without a probe.
choose_accelerator() {
    local verdict key
    verdict=$GUEST_DIR/accelerator-$(qemu_version)
    ACCELERATOR=${SEALBLK_ACCEL:-}
    [[ -z $ACCELERATOR ]] || { note "guest runs under $ACCELERATOR (SEALBLK_ACCEL)"; return; }
    key="$(</proc/sys/kernel/random/boot_id) $(stat -L -c %Y "$(command -v qemu-system-x86_64)") $EUID $(<"$GUEST_DIR/stamp")"
    if [[ ! -r $verdict || $(sed -n 1p "$verdict") != "$key" ]]; then
        note "looking whether a guest boots under KVM"
        if kvm_boots; then
            printf '%s\n' "$key" kvm 'a guest boots under KVM' >"$verdict"
        else
            printf '%s\n' "$key" tcg "$PROBE" >"$verdict"
        fi
    fi
    ACCELERATOR=$(sed -n 2p "$verdict")
    case $ACCELERATOR in
    kvm) note "guest runs under KVM" ;;
    *) note "guest runs under TCG (emulation): $(sed -n 3p "$verdict")" ;;
    esac
}

# guest_start CONSOLE JOB-PARAMETERS SOCKET… : boots a guest with a disk for each vhost-user socket; without parameters, from the
# first of the disks.
guest_start() {
    local console=$1 append=$2
    shift 2
    disk_arguments "$@"
    guest_start_with "$console" "$append" "${DISK_ARGUMENTS[@]}"
}

# disk_arguments SOCKET… : sets DISK_ARGUMENTS to QEMU's arguments for these disks.
disk_arguments() {
    local socket n=0 reconnect
    reconnect=$(reconnect_option)
    DISK_ARGUMENTS=()
    for socket in "$@"; do
        DISK_ARGUMENTS+=(-chardev "socket,id=c$n,path=$socket,$reconnect"
            -device "vhost-user-blk-pci,chardev=c$n${GUEST_QUEUES:+,num-queues=$GUEST_QUEUES}$GUEST_DISK_OPTIONS")
        n=$((n + 1))
    done
}

# guest_start_with CONSOLE JOB-PARAMETERS ARGUMENT… : boots a guest with these arguments for QEMU.
guest_start_with() {
    local console=$1 append=$2
    shift 2
    : >"$console"
    GUEST_CONSOLE=$console
    (qemu_exec "$ACCELERATOR" "$console" "${append:+loglevel=4 $append}" "$@") >"$console.qemu" 2>&1 &
    GUEST_PID=$!
}

# Lines of the guest's report; the console ends lines with CR LF.
guest_report() { tr -d '\r' <"$GUEST_CONSOLE" | sed -n 's/^GUEST: //p'; }
# guest_info NAME: what the guest said of it.
guest_info() { guest_report | sed -n "s/^info $1 //p" | sed -n 1p; }
guest_has() { guest_report | grep -q "^$1"; }

# Waits until the guest reported a step done; fails, showing the console, if it ended without.
guest_wait_for() {
    local start
    start=$(now_ms)
    while running "$GUEST_PID" && (($(now_ms) - start < GUEST_TIMEOUT)); do
        if guest_has "ok $1 "; then return; fi
        sleep 0.1
    done
    guest_has "ok $1 " || { guest_show_console; return 1; }
}

# Shows the steps that were reported since line $1; sets SHOWN to the number of lines.
show_steps() {
    local verdict step time
    while read -r verdict step time; do
        SHOWN=$((SHOWN + 1))
        case $verdict in
        ok) note "guest: $step ${DIM}$(seconds "$time")${PLAIN}" ;;
        FAILED) note "guest: $step ${RED}FAILED${PLAIN}" ;;
        esac
    done < <(guest_report | tail -n "+$((SHOWN + 1))")
}

# Follows the guest to its end, showing its steps. Succeeds if its job was done to the end; otherwise
# shows the console.
guest_wait() {
    local start
    SHOWN=0
    start=$(now_ms)
    while running "$GUEST_PID"; do
        show_steps
        if (($(now_ms) - start > GUEST_TIMEOUT)); then
            note "guest: not finished after $(seconds $GUEST_TIMEOUT), stopped"
            break
        fi
        sleep 0.2
    done
    guest_end
    show_steps
    if guest_has end && ! guest_has FAILED; then return; fi
    guest_show_console
    return 1
}

# Ends the guest if it runs.
guest_end() {
    [[ -n $GUEST_PID ]] || return 0
    end_process "$GUEST_PID"
    GUEST_PID=''
}

# What a reader needs when a guest failed.
guest_show_console() {
    show_log "$GUEST_CONSOLE.qemu"
    show_log "$GUEST_CONSOLE" 80
}
