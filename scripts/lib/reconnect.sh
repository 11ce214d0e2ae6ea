# shellcheck shell=bash
# Guests whose disk's process is killed, or replaced, again and again. Sourced after daemons.sh, qemu.sh and checks.sh.

# How often, how many seconds apart, and how long the guest works.
KILLS=${SEALBLK_KILLS:-8}
KILL_INTERVAL=3
ENDURE_SECONDS=$((KILLS * (KILL_INTERVAL + 1) + 10))

# kill_backend DISK: kills the process that serves the disk, and sets KILLED to its id.
kill_backend() {
    KILLED=$(disk_number "$1" pid)
    [[ -n $KILLED ]] && kill -KILL "$KILLED"
}

# restart_backend DISK: replaces the process that serves the disk.
restart_backend() { sealctl backend restart "$1"; }

# endure NAME COMMAND: a guest writes and verifies while the command is done to its disk, KILLS times.
endure() {
    local name=$1 command=$2 times=0
    sealctl disk create "$name" --size 128MiB && attach "$name" vm &&
        guest_start "$RUN/$name.console" "sealblk.job=endure sealblk.seconds=$ENDURE_SECONDS" \
            "$(disk_text "$name" socket)" && guest_wait_for ready || return
    while ((times < KILLS)) && running "$GUEST_PID" && ! guest_has 'ok endure'; do
        sleep "$KILL_INTERVAL"
        if "$command" "$name"; then times=$((times + 1)); fi
    done
    guest_wait && note "$(guest_info rounds) rounds of fio" && equal "times of $command" "$KILLS" "$times" &&
        sealctl detach "$name" vm
}
