# shellcheck shell=bash
# Ends processes, each by its id. Sourced, never run.

running() { [[ -n $1 ]] && kill -0 "$1" 2>/dev/null; }

# end_process PID… : asks each to end, makes it after five seconds. Works for children and others.
end_process() {
    local pid tries
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        tries=50
        while running "$pid" && ((tries--)); do sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

# Ids of the processes that were started as $1.
processes_named() {
    local directory first
    for directory in /proc/[0-9]*; do
        # Processes end while this looks at them.
        { IFS= read -r -d '' first <"$directory/cmdline"; } 2>/dev/null || continue
        [[ $first != "$1" ]] || printf '%s\n' "${directory#/proc/}"
    done
}

# Ids of the processes that have $1 somewhere in an argument.
processes_with() {
    local directory arguments
    for directory in /proc/[0-9]*; do
        [[ $directory != "/proc/$$" && $directory != "/proc/$BASHPID" ]] || continue
        { arguments=$(tr '\0' ' ' <"$directory/cmdline"); } 2>/dev/null || continue
        [[ $arguments != *"$1"* ]] || printf '%s\n' "${directory#/proc/}"
    done
}
