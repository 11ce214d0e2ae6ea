# shellcheck shell=bash
# Measures sealblk and qemu-storage-daemon as a guest sees them: by fio, through vhost-user-blk-pci. Sourced after common.sh,
# processes.sh, qemu.sh and daemons.sh.
#
# One guest has a disk on each backend and runs each job file on all of them in turns, so that they are compared under the
# same conditions, whatever else the machine does. Beside what fio says in the guest, the processor time that the
# backend took is read on the host.

# In the order of the guest's disks, vda and on.
PEER_NAMES=()
PEER_SOCKETS=()
PEER_PIDS=()
# Clock ticks of processor time at the last look.
PEER_TICKS=()
STORAGE_DAEMONS=()
IMAGES=''

ROUNDS=5
SECONDS_EACH=2
MEBIBYTES=256
ENGINE=libaio
ONLY=''
DIRECT=''
# Seconds without a word from the guest after which it is given up.
PATIENCE=300

# bench_guest DIRECTORY DIRECT ARGUMENT… : images go below the directory; DIRECT is not empty if past the page cache.
bench_guest() {
    local directory=$1
    DIRECT=$2
    shift 2
    guest_options "$@"
    "$ROOT/scripts/guest-image"
    trap bench_guest_finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    choose_accelerator
    IMAGES=$(mktemp -d "$directory/sealblk-bench-guest.XXXXXX")
    # Each sealblk that root starts runs under a user id of its own.
    chmod 0711 "$IMAGES"
    daemons_begin bench-guest release
    heading 'Starting the backends'
    { kms_init && kms_serve && sealctl kms activate && sealctl instance register vm; } >"$RUN/set-up.log" 2>&1 ||
        die "sealblk-kms does not start: $(tail -n 1 "$RUN/set-up.log")"
    start_storage_daemon 'storage-daemon LUKS' luks
    start_storage_daemon 'storage-daemon raw' raw
    attach_disk 'sealblk encrypted' encrypted --encrypted=true
    attach_disk 'sealblk plain' plain --encrypted=false
    heading 'Measuring in the guest'
    measure_in_guest
    results_shown
}

guest_options() {
    while (($#)); do
        case $1 in
        --rounds) ROUNDS=${2:?} ;;
        --seconds) SECONDS_EACH=${2:?} ;;
        --mebibytes) MEBIBYTES=${2:?} ;;
        --engine) ENGINE=${2:?} ;;
        --only) ONLY=${2:?} ;;
        *) die "unknown argument for --guest: $1 (there are --rounds, --seconds, --mebibytes, --engine, --only)" ;;
        esac
        shift 2
    done
}

bench_guest_finish() {
    local status=$?
    trap - EXIT
    guest_end
    if ((status)); then daemons_show_logs; fi
    if ((${#STORAGE_DAEMONS[@]})); then end_process "${STORAGE_DAEMONS[@]}"; fi
    daemons_end
    if [[ -n $IMAGES ]]; then rm -rf "$IMAGES"; fi
    exit "$status"
}

add_peer() {
    PEER_NAMES+=("$1")
    PEER_SOCKETS+=("$2")
    PEER_PIDS+=("$3")
    note "$1: process $3"
}

# start_storage_daemon NAME FORMAT: QEMU's own backend, with an image of that format.
start_storage_daemon() {
    local image=$IMAGES/$2.img socket=$RUN/$2.sock pid tries=100
    local file="driver=file,node-name=file,filename=$image,aio=threads,cache.direct=off"
    local -a create=(-f raw) format=(--blockdev 'driver=raw,node-name=disk,file=file')
    [[ -z $DIRECT ]] || file=${file/aio=threads,cache.direct=off/aio=io_uring,cache.direct=on}
    if [[ $2 == luks ]]; then
        create=(-f luks --object 'secret,id=key,data=benchmark'
            -o 'key-secret=key,cipher-alg=aes-256,cipher-mode=xts,iter-time=10')
        format=(--object 'secret,id=key,data=benchmark'
            --blockdev 'driver=luks,node-name=disk,file=file,key-secret=key')
    fi
    qemu-img create -q "${create[@]}" "$image" "${MEBIBYTES}M"
    qemu-storage-daemon --blockdev "$file" "${format[@]}" --export \
        "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,addr.type=unix,addr.path=$socket" \
        >"$RUN/$2.log" 2>&1 </dev/null &
    pid=$!
    STORAGE_DAEMONS+=("$pid")
    until [[ -S $socket ]]; do
        if ! running "$pid" || ! ((tries--)); then
            die "qemu-storage-daemon does not start: $(tail -n 1 "$RUN/$2.log")"
        fi
        sleep 0.1
    done
    add_peer "$1" "$socket" "$pid"
}

# attach_disk NAME DISK ARGUMENT… : a layered disk of sealblk, created with these arguments.
attach_disk() {
    local name=$1 disk=$2 pid='' tries=100
    shift 2
    { sealctl disk create "$disk" --path "$IMAGES/$disk.img" --size "${MEBIBYTES}MiB" "$@" &&
        sealctl attach "$disk" vm --queues 2; } >>"$RUN/set-up.log" || die "the disk $disk cannot be made"
    until [[ -n $pid ]]; do
        ((tries--)) || die "no process serves the disk $disk"
        pid=$(disk_number "$disk" pid) || sleep 0.1
    done
    add_peer "$name" "$(disk_text "$disk" socket)" "$pid"
}

# The job files that measure something, by name.
job_files() {
    local file name
    for file in "$ROOT"/scripts/fio/*.fio; do
        name=${file##*/} name=${name%.fio}
        [[ $name == fill || $name == verify || $name != *"$ONLY"* ]] || printf '%s\n' "$name"
    done
}

measure_in_guest() {
    local letters=abcdefgh disks='' n
    local -a arguments=() jobs
    mapfile -t jobs < <(job_files)
    ((${#jobs[@]})) || die "no job file has a name with '$ONLY' in it"
    tar -c -f "$RUN/fio.tar" -C "$ROOT/scripts/fio" .
    for n in "${!PEER_SOCKETS[@]}"; do
        disks+=,vd${letters:n:1}
        arguments+=(-chardev "socket,id=c$n,path=${PEER_SOCKETS[n]}"
            -device "vhost-user-blk-pci,chardev=c$n,num-queues=2")
    done
    # After the others, so that it is the last disk.
    arguments+=(-drive "file=$RUN/fio.tar,format=raw,if=none,id=jobs,readonly=on" -device 'virtio-blk-pci,drive=jobs')
    guest_start_with "$RUN/fio.console" "sealblk.job=fio sealblk.disks=${disks:1} sealblk.archive=vd${letters:${#PEER_SOCKETS[@]}:1} \
sealblk.jobs=$(IFS=,; echo "${jobs[*]}") sealblk.rounds=$ROUNDS sealblk.seconds=$SECONDS_EACH sealblk.engine=$ENGINE" \
        "${arguments[@]}"
    : >"$RUN/results"
    follow_measurements
    guest_wait >"$RUN/steps" || { cat "$RUN/steps"; die 'the guest did not finish'; }
}

# Reads the guest's report while it is written.
follow_measurements() {
    local console line='' part heard=$SECONDS
    exec {console}<"$GUEST_CONSOLE"
    while true; do
        if IFS= read -r -u "$console" part; then
            line+=$part
            noticed "${line%$'\r'}"
            line='' heard=$SECONDS
            continue
        fi
        # The rest of the line is not written yet.
        line+=$part
        running "$GUEST_PID" || break
        ((SECONDS - heard < PATIENCE)) || { guest_show_console; die "the guest was silent for $PATIENCE s"; }
        sleep 0.2
    done
    exec {console}<&-
}

# noticed LINE: a backend works only while its disk is measured, so that what it has used since the last look is what this
# measurement took.
noticed() {
    local job disk rest peer
    case $1 in
    'GUEST: ok fill-'* | 'GUEST: ok verify-'*)
        note "${1#GUEST: ok }"
        note_processor_times
        ;;
    'GUEST: info fio '*)
        read -r job disk rest <<<"${1#GUEST: info fio }"
        peer=$(($(printf '%d' "'${disk#vd}") - $(printf '%d' "'a")))
        note "$job, ${PEER_NAMES[peer]}: ${rest%% *} a second"
        note_result "$peer" "$job" "$rest"
        ;;
    esac
}

note_processor_times() {
    local peer
    for peer in "${!PEER_PIDS[@]}"; do processor_ticks "$peer" && PEER_TICKS[peer]=$TICKS; done
}

# note_result PEER JOB MEASURED
note_result() {
    processor_ticks "$1"
    printf '%s\t%s\t%s\t%s\n' "$2" "$1" "${3// /$'\t'}" $((TICKS - PEER_TICKS[$1])) >>"$RUN/results"
    PEER_TICKS[$1]=$TICKS
}

# Sets TICKS to the processor time of a backend, its ended threads and the kernel's part included (proc(5), utime and stime of
# /proc/pid/stat). Starts no process: that would take time from what is measured.
processor_ticks() {
    local stat
    local -a fields
    read -r stat <"/proc/${PEER_PIDS[$1]}/stat" || return
    # From the third field on: the second is a name that may have anything in it.
    read -r -a fields <<<"${stat##*) }"
    TICKS=$((fields[11] + fields[12]))
}

results_shown() {
    heading 'Results'
    note "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | sed -n 1p), $(nproc) processors; medians of $ROUNDS rounds of $SECONDS_EACH s; $ENGINE in the guest; images ${DIRECT:+past the page cache }in ${IMAGES%/*}"
    awk -F '\t' -v names="$(IFS=,; echo "${PEER_NAMES[*]}")" -v ticks="$(getconf CLK_TCK)" \
        -f "$ROOT/scripts/lib/spread.awk" -f "$ROOT/scripts/lib/bench-guest.awk" "$RUN/results"
    [[ $ACCELERATOR != tcg ]] || emulation_explained
}

emulation_explained() {
    printf '\n'
    note 'The guest ran under TCG: its processors are emulated, and a request costs the guest itself many times what it costs a'
    note 'real one, besides the time that emulation takes from the backends. That hides most of the differences between'
    note 'backends, all of them with small requests. Speeds and latencies above say little of a guest under KVM; the processor'
    note 'time of the backends says more. Run this on a host with a usable /dev/kvm.'
}
