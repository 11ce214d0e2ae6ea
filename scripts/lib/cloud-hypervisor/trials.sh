# shellcheck shell=bash
# The trials, a function trial_NAME each. Sourced after vm.sh and checks.sh; the disks data and plain are there, and instance vm.

attach() { sealctl attach "$@" --queues 2 >"$RUN/attach.out"; }
# A field as sealctl shows it: in the JSON of a disk with snapshots, those have fields of the same names.
shown() { sealctl disk show "$1" | sed -n "s/^$2: *//p"; }
attachment_of() { basename "$(dirname "$(disk_text "$1" socket)")"; }

trial_hello() { vm_start hello 'sealblk.job=hello' && vm_wait; }

# The guest sees what QEMU's guests see, and a second boot reads what the first has written.
trial_write() {
    local id written
    attach data vm && attach plain vm && id=$(disk_text data id) &&
        vm_start write 'sealblk.job=write sealblk.fio=16 sealblk.marker=sealblk-cloud-hypervisor' \
            --disk "$(vm_disk data)" "$(vm_disk plain)" && vm_wait &&
        equal size $((256 << 20)) "$(vm_info 'vda size')" && equal 'number of queues' 2 "$(vm_info 'vda queues')" &&
        equal cache 'write back' "$(vm_info 'vda cache')" && equal serial "${id:0:20}" "$(vm_info 'vda serial')" &&
        equal 'errors' 0 "$(disk_number data errors)" || return
    note "interrupts by queue: $(vm_info 'vda interrupts'); $(disk_number data flushes) flushes"
    written=$(vm_info file-sha256)
    [[ ${#written} == 64 ]] && vm_start read 'sealblk.job=read' --disk "$(vm_disk data)" && vm_wait &&
        equal SHA-256 "$written" "$(vm_info file-sha256)" && sealctl detach data vm && sealctl detach plain vm &&
        sealctl disk check data
}

# under_load NAME TIMES COMMAND: the guest writes and verifies while the command is done to its disk, again and again.
under_load() {
    local name=$1 times=$2 command=$3 number=0
    sealctl disk create "$name" --size 64MiB >"$RUN/create.out" && attach "$name" vm &&
        vm_start "$name" "sealblk.job=stall sealblk.mib=4 sealblk.seconds=$((times * 6 + 5))" --disk "$(vm_disk "$name")" &&
        vm_wait_for ready || return
    while ((number < times)) && running "$VM_PID" && ! vm_has FAILED; do
        sleep 4
        if grep NEEDS_RESET "$VM_LOG"; then note 'cloud-hypervisor has given the disk up'; return 1; fi
        "$command" "$name" || { note "$command failed"; return 1; }
        number=$((number + 1))
    done
    vm_wait && equal "times of $command" "$times" "$number" && equal errors 0 "$(disk_number "$name" errors)" || return
    note "$(vm_info rounds) rounds of fio; cloud-hypervisor connected again $(grep -c 'disconnected, attempting' "$VM_LOG") times"
    sealctl detach "$name" vm && sealctl disk check "$name"
}

# new_backend PID ATTACHMENT: the process that serves the attachment now, if it is another one. Neither asks the KMS nor starts
# processes, which would take longer than what is measured.
new_backend() {
    local directory
    local -a arguments
    for directory in /proc/[0-9]*; do
        [[ $directory != "/proc/$1" ]] || continue
        { mapfile -d '' -t arguments <"$directory/cmdline"; } 2>/dev/null || continue
        [[ "${arguments[*]}" != *"--attachment $2 "* ]] || { printf '%s\n' "${directory#/proc/}"; return; }
    done
}

# signal_backend SIGNAL DISK: the process that serves the disk ends, and the KMS starts another one.
signal_backend() {
    local pid attachment start next
    pid=$(disk_number "$2" pid) && attachment=$(attachment_of "$2") || return
    start=$(now_ms)
    kill "-$1" "$pid" || return
    while next=$(new_backend "$pid" "$attachment"); [[ -z $next ]]; do
        (($(now_ms) - start < 10000)) || { note "no other process within 10 s of $1 for process $pid"; return 1; }
        sleep 0.02
    done
    note "$1 for process $pid, $(($(now_ms) - start)) ms later there is process $next"
}
kill_once() { signal_backend KILL "$1"; }
term_once() { signal_backend TERM "$1"; }
restart_once() {
    local start
    start=$(now_ms)
    sealctl backend restart "$1" >"$RUN/restart.out" && note "restart took $(($(now_ms) - start)) ms"
}
# While the guest is paused, its disk's process dies.
kill_paused() { vm_remote pause && kill_once "$1" && sleep 1 && vm_remote resume; }

trial_kill() { under_load killed 8 kill_once; }
trial_term_backend() { under_load termed 6 term_once; }
trial_restart() { under_load restarted 6 restart_once; }
trial_paused() { under_load paused 2 kill_paused; }

# Detached by force under load, attached again at the same path within the minute for which cloud-hypervisor tries.
trial_force() {
    local path=$RUN/fixed.sock
    sealctl disk create forced --size 64MiB >"$RUN/create.out" && attach forced vm --vhost-socket "$path" &&
        vm_start forced 'sealblk.job=stall sealblk.mib=24 sealblk.seconds=30' --disk "$(vm_disk forced)" &&
        vm_wait_for ready || return
    sleep 5
    sealctl detach forced vm --force || return
    sleep 6
    attach forced vm --vhost-socket "$path" || return
    sleep 4
    equal connected yes "$(shown forced connected)" && vm_wait && sealctl detach forced vm && sealctl disk check forced
}

# Snapshots one after the other while fio writes, each after more writes; then the guest destroys its files.
trial_snapshot() {
    local number=0 seen writes sum
    attach data vm &&
        vm_start live 'sealblk.job=live sealblk.fio=64 sealblk.marker=sealblk-live' --disk "$(vm_disk data)" &&
        vm_wait_for sync && seen=$(disk_number data writes) || return
    until vm_has 'ok load' || ! running "$VM_PID" || ((number == 4)); do
        writes=$(disk_number data writes) || return
        if ((writes < seen + 40)); then
            sleep 0.1
            continue
        fi
        sealctl snapshot create data "live-$((number + 1))" >"$RUN/snapshot.out" || return
        # Only one that was taken before fio had ended counts.
        vm_has 'ok load' || number=$((number + 1))
        seen=$writes
    done
    note "$number snapshots while fio wrote"
    ((number >= 2)) && refused_with FrontendConnected sealctl detach data vm && equal state in-use "$(shown data state)" &&
        vm_wait && sum=$(vm_info file-sha256) && [[ ${#sum} == 64 ]] && sealctl detach data vm &&
        sealctl rollback data "live-$number" && sealctl disk check data && attach data vm &&
        vm_start restored 'sealblk.job=restored' --disk "$(vm_disk data)" && vm_wait &&
        equal SHA-256 "$sum" "$(vm_info file-sha256)" && sealctl detach data vm
}

# cloud-hypervisor ignores that a vhost-user disk has grown until the guest restarts.
trial_resize() {
    local before after
    sealctl disk create grow --size 64MiB >"$RUN/create.out" && attach grow vm &&
        vm_start grow 'sealblk.job=regrow sealblk.seconds=8' --disk "$(vm_disk grow)" && vm_wait_for ready &&
        sealctl disk resize grow --size 96MiB >"$RUN/resize.out" && vm_wait_for settled || return
    before=$(vm_info size-before) after=$(vm_info size-after)
    vm_wait && note "before $before, after growth $after, after a restart $(vm_info size-after-reboot)" &&
        equal 'size before' $((64 << 20)) "$before" && equal 'size after growth' $((64 << 20)) "$after" &&
        equal 'size after a restart' $((96 << 20)) "$(vm_info size-after-reboot)" && sealctl detach grow vm
}

# ended_by COMMAND NAME: cloud-hypervisor is ended from outside under load; after detach and attach the data is there.
ended_by() {
    local name=$2 sum tries=100
    sealctl disk create "$name" --size 64MiB >"$RUN/create.out" && attach "$name" vm &&
        vm_start "$name" 'sealblk.job=hold sealblk.marker=sealblk-hold' --disk "$(vm_disk "$name")" && vm_wait_for held ||
        return
    sum=$(vm_info file-sha256)
    sleep 2
    "$1" || return
    while running "$VM_PID" && ((tries--)); do sleep 0.1; done
    if running "$VM_PID"; then note "cloud-hypervisor still runs after 10 s"; return 1; fi
    ! vm_has FAILED || { vm_show; return 1; }
    tries=50
    while [[ $(shown "$name" connected) != no ]] && ((tries--)); do sleep 0.1; done
    sealctl detach "$name" vm && sealctl disk check "$name" && attach "$name" vm &&
        vm_start "$name-again" 'sealblk.job=restored' --disk "$(vm_disk "$name")" && vm_wait &&
        equal SHA-256 "$sum" "$(vm_info file-sha256)" && sealctl detach "$name" vm
}
term_vm() { kill -TERM "$VM_PID"; }
kill_vm() { kill -KILL "$VM_PID"; }
shut_down_vm() { vm_remote shutdown && sleep 0.5 && equal connected no "$(shown by-api connected)" && vm_remote shutdown-vmm; }
trial_term() { ended_by term_vm by-term; }
trial_killch() { ended_by kill_vm by-kill; }
trial_api() { ended_by shut_down_vm by-api; }

# A disk is attached, plugged in, written, unplugged and detached while the guest runs. The KMS asks cloud-hypervisor for its
# devices.
trial_hotplug() {
    local VM_SOCKET=$RUN/app.api
    sealctl instance register app --vm-socket "$VM_SOCKET" >"$RUN/register.out" &&
        sealctl disk create first --size 64MiB >"$RUN/create.out" &&
        sealctl disk create second --size 64MiB >"$RUN/create.out" && attach first app &&
        vm_start hotplug 'sealblk.job=hotplug' --disk "$(vm_disk first)" && vm_wait_for ready && attach second app &&
        vm_remote add-disk "$(vm_disk second),id=plugged" && vm_wait_for plugged &&
        refused_with FrontendConnected sealctl detach second app && vm_remote remove-device plugged || return
    sleep 3
    equal connected no "$(shown second connected)" && sealctl detach second app && vm_remote shutdown-vmm || return
    sleep 1
    sealctl detach first app
}

# with_devices NAME COMMAND ARGUMENT…: the command while a guest has these devices.
with_devices() {
    local VM_SOCKET=$RUN/local.api command=$2 name=$1 tries=100 status=0
    shift 2
    note "a guest with $*: the attach must be $command"
    vm_start "$name" 'sealblk.job=hello' "$@"
    until vm_remote info >"$OUT/$name.json" 2>/dev/null; do
        if ! running "$VM_PID" || ! ((tries--)); then
            vm_show
            return 1
        fi
        sleep 0.1
    done
    # It would end.
    vm_remote pause || true
    "$command" || status=1
    vm_end
    return "$status"
}
refused() { refused_with 'LocalDevice (A03)' sealctl attach try local; }
allowed() { attach try local && sealctl detach try local >"$RUN/detach.out"; }

# An encrypted disk comes only to a guest that has no storage of its host but its boot disk.
trial_local() {
    sealctl instance register local --vm-socket "$RUN/local.api" --boot-disk "$RUN/boot.raw" >"$RUN/register.out" &&
        sealctl disk create try --size 64MiB >"$RUN/create.out" && truncate -s 16M "$RUN/local.raw" "$RUN/boot.raw" &&
        with_devices no-device allowed --rng src=/dev/urandom &&
        with_devices local-disk refused --disk "path=$RUN/local.raw,image_type=raw" &&
        with_devices boot-disk allowed --disk "path=$RUN/boot.raw,image_type=raw"
}
