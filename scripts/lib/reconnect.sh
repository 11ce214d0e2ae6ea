# shellcheck shell=bash
# Guests whose disk's process is killed, or replaced, again and again. Sourced after daemons.sh, qemu.sh and checks.sh.

# How often, and how many seconds apart.
# shellcheck disable=SC2034 # guest-test uses it
KILLS=${SEALBLK_KILLS:-8}
KILL_INTERVAL=3

# kill_backend DISK: kills the process that serves the disk, and sets KILLED to its id.
kill_backend() {
    KILLED=$(disk_number "$1" pid)
    [[ -n $KILLED ]] && kill -KILL "$KILLED"
}

# restart_backend DISK: replaces the process that serves the disk.
restart_backend() { sealctl backend restart "$1"; }

# endure NAME COMMAND TIMES: a guest writes and verifies while the command is done to its disk.
endure() {
    local name=$1 command=$2 wanted=$3 times=0
    sealctl disk create "$name" --size 128MiB && attach "$name" vm &&
        guest_start "$RUN/$name.console" "sealblk.job=endure sealblk.seconds=$((wanted * (KILL_INTERVAL + 1) + 10))" \
            "$(disk_text "$name" socket)" && guest_wait_for ready || return
    while ((times < wanted)) && running "$GUEST_PID" && ! guest_has 'ok endure'; do
        sleep "$KILL_INTERVAL"
        if "$command" "$name"; then times=$((times + 1)); fi
    done
    guest_wait && note "$(guest_info rounds) rounds of fio" && equal "times of $command" "$wanted" "$times" &&
        sealctl detach "$name" vm
}
