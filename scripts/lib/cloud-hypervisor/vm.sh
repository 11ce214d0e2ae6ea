# shellcheck shell=bash
# Boots the guest in cloud-hypervisor and reads what it reports. Sourced after common.sh, processes.sh and daemons.sh, with OUT set.
#
# vm_start leaves VM_PID, VM_CONSOLE, VM_LOG and VM_API; vm_wait follows the guest to its end.

# Milliseconds from a guest's start to the end of its job.
VM_TIMEOUT=240000

VM_PID='' VM_CONSOLE='' VM_LOG='' VM_API='' VM_STARTED=0

# vm_start NAME JOB-PARAMETERS ARGUMENT…: boots a guest with these arguments for cloud-hypervisor, whose API is at VM_SOCKET if
# that is set.
vm_start() {
    local append=$2
    VM_CONSOLE=$OUT/$1.console VM_LOG=$OUT/$1.log VM_API=${VM_SOCKET:-$RUN/$1.api}
    shift 2
    : >"$VM_CONSOLE"
    # It leaves its socket behind when it is killed.
    rm -f "$VM_API"
    # no_timer_check: an emulated timer may be late, and the kernel would give up on it.
    cloud-hypervisor --api-socket "$VM_API" --cpus boot=2 --memory size=512M,shared=on --kernel /guest/vmlinux \
        --initramfs /guest/initramfs --console off --serial "file=$VM_CONSOLE" -v --log-file "$VM_LOG" \
        --cmdline "console=ttyS0 panic=-1 no_timer_check loglevel=4 mitigations=off nokaslr $append" "$@" \
        >"$VM_LOG.out" 2>&1 </dev/null &
    VM_PID=$!
    VM_STARTED=$(now_ms)
}

# The value of --disk for an attached disk.
vm_disk() { printf 'vhost_user=on,socket=%s,num_queues=2,queue_size=128' "$(disk_text "$1" socket)"; }

# Asks the running cloud-hypervisor for something.
vm_remote() { ch-remote --api-socket "$VM_API" "$@"; }

# Lines of the guest's report; the console ends lines with CR LF.
vm_report() { tr -d '\r' <"$VM_CONSOLE" | sed -n 's/^GUEST: //p'; }
# vm_info NAME: what the guest said of it.
vm_info() { vm_report | sed -n "s/^info $1 //p" | sed -n 1p; }
vm_has() { vm_report | grep -q "^$1"; }
vm_late() { (($(now_ms) - VM_STARTED > VM_TIMEOUT)); }

# Waits until the guest reported a step done; fails, showing the console, if it ended without.
vm_wait_for() {
    while running "$VM_PID" && ! vm_late && ! vm_has FAILED; do
        ! vm_has "ok $1 " || return 0
        sleep 0.3
    done
    vm_has "ok $1 " || { note "the guest did not come to $1"; vm_show; return 1; }
}

# Waits for the guest's end. Succeeds if its job was done to the end; otherwise shows the console.
vm_wait() {
    while running "$VM_PID"; do
        if vm_late; then
            note "guest: not finished after $(seconds "$VM_TIMEOUT"), stopped"
            break
        fi
        sleep 0.3
    done
    vm_end
    if vm_has end && ! vm_has FAILED; then return; fi
    vm_show
    return 1
}

# Ends cloud-hypervisor if it runs.
vm_end() {
    [[ -n $VM_PID ]] || return 0
    end_process "$VM_PID"
    VM_PID=''
}

# What a reader needs when something failed.
vm_show() {
    show_log "$VM_LOG.out"
    show_log "$VM_LOG"
    show_log "$VM_CONSOLE" 80
}
