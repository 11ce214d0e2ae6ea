# shellcheck shell=bash
# A KMS of its own in a fresh directory, and the commands that talk to it. Sourced after common.sh and
# processes.sh. The directory and every process started in it go when daemons_end is called.

RUN=''
STATE=''
KMS_PID=''

# daemons_begin NAME PROFILE: makes the directory; the programs come from target/PROFILE.
daemons_begin() {
    local program
    RUN=$(mktemp -d "${TMPDIR:-/tmp}/sealblk-$1.XXXXXX")
    STATE=$RUN/state
    # Started by root, each sealblk runs under a user id of its own: it must be able to pass through
    # here, and to execute the program even where the source tree is closed to it.
    chmod 0711 "$RUN"
    mkdir -m 0755 "$RUN/bin"
    for program in sealblk sealblk-kms sealctl; do
        install -m 0755 "$ROOT/target/$2/$program" "$RUN/bin/" || return
    done
    export SEALBLK_SOCKET=$STATE/kms.sock
}

sealctl() { "$RUN/bin/sealctl" "$@"; }

# Shows a command as the operator would type it, then what it prints.
sealctl_shown() {
    note "${DIM}\$ sealctl $*${PLAIN}"
    sealctl "$@" | sed 's/^/     /'
}

kms_init() { "$RUN/bin/sealblk-kms" init --state "$STATE" --region demo-region; }

# Starts the KMS, with further options, and waits until it answers.
kms_serve() {
    local tries=150
    "$RUN/bin/sealblk-kms" serve --state "$STATE" "$@" >>"$RUN/kms.log" 2>&1 </dev/null &
    KMS_PID=$!
    until sealctl kms status >/dev/null 2>&1; do
        running "$KMS_PID" && ((tries--)) || return 1
        sleep 0.1
    done
}

# Fields of a JSON object on standard input.
json_text() { tr -d '\n' | grep -o "\"$1\": *\"[^\"]*\"" | sed -n '1s/^[^:]*: *"\(.*\)"$/\1/p'; }
json_number() { tr -d '\n' | grep -o "\"$1\": *[0-9]*" | sed -n '1s/^[^:]*: *//p'; }

# Leaves the attachments out of a disk's JSON: they have fields of the same names.
without_attachments() {
    # Lists in them go first.
    tr -d '\n' | sed -E ':a; s/("attachments": *\[[^][]*)\[[^][]*\]/\1/; ta; s/"attachments": *\[[^][]*\]//'
}

# disk_text DISK FIELD, disk_number DISK FIELD: what the KMS knows of a disk.
disk_text() { sealctl -o json disk show "$1" | without_attachments | json_text "$2"; }
disk_number() { sealctl -o json disk show "$1" | without_attachments | json_number "$2"; }

# refused_with CODE COMMAND…: the command must fail with status 1 and exactly this code (and rule).
refused_with() {
    local code=$1 status=0 said
    shift
    note "${DIM}\$ $*${PLAIN}"
    said=$("$@" 2>&1 >/dev/null) || status=$?
    note "  $said"
    note "  exit status $status"
    ((status == 1)) && [[ $said == "error: $code: "* ]]
}

daemons_show_logs() {
    local log
    [[ -n $RUN ]] || return 0
    show_log "$RUN/kms.log"
    for log in "$STATE"/run/*/*.log; do show_log "$log"; done
}

daemons_end() {
    local -a backends
    [[ -n $RUN ]] || return 0
    # The KMS first: it would start its backends again.
    if [[ -n $KMS_PID ]]; then end_process "$KMS_PID"; fi
    mapfile -t backends < <(processes_named "$RUN/bin/sealblk")
    if ((${#backends[@]})); then end_process "${backends[@]}"; fi
    rm -rf "$RUN"
    RUN=''
}
