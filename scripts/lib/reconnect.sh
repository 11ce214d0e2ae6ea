# shellcheck shell=bash
# A guest whose disk's process is killed again and again. Sourced after daemons.sh, qemu.sh and checks.sh.

# How often, how many seconds apart, and how long the guest works.
KILLS=${SEALBLK_KILLS:-8}
KILL_INTERVAL=3
ENDURE_SECONDS=$((KILLS * (KILL_INTERVAL + 1) + 10))

# kill_backend DISK: kills the process that serves the disk, and sets KILLED to its id.
kill_backend() {
    KILLED=$(disk_number "$1" pid)
    [[ -n $KILLED ]] && kill -KILL "$KILLED"
}

endure_kills() {
    local kills=0
    sealctl disk create enduring --size 128MiB && attach enduring vm &&
        guest_start "$RUN/kills.console" "sealblk.job=endure sealblk.seconds=$ENDURE_SECONDS" \
            "$(disk_text enduring socket)" && guest_wait_for ready || return
    while ((kills < KILLS)) && running "$GUEST_PID" && ! guest_has 'ok endure'; do
        sleep "$KILL_INTERVAL"
        if kill_backend enduring; then kills=$((kills + 1)); fi
    done
    guest_wait && note "$kills kills, $(guest_info rounds) rounds of fio" && equal kills "$KILLS" "$kills" &&
        sealctl detach enduring vm
}
