# shellcheck shell=bash
# Steps with a result each, and the table at the end. Sourced after common.sh.

CHECK_TITLES=()
CHECK_RESULTS=()
CHECK_TIMES=()
CHECKS_FAILED=0

# check TITLE COMMAND…: runs the command here, so that it can set variables, and notes the result.
check() {
    local title=$1 start result=ok
    shift
    printf '%s-- %s%s\n' "$BOLD" "$title" "$PLAIN"
    start=$(now_ms)
    "$@" || result=FAILED
    CHECK_TITLES+=("$title")
    CHECK_RESULTS+=("$result")
    CHECK_TIMES+=($(($(now_ms) - start)))
    [[ $result == ok ]] && return
    CHECKS_FAILED=$((CHECKS_FAILED + 1))
    note "${RED}FAILED${PLAIN}: $title"
    return 1
}

# A check without which the rest makes no sense: the script ends if it fails.
must() { check "$@" || exit 1; }

checks_table() {
    local i colour
    printf '\n'
    for i in "${!CHECK_TITLES[@]}"; do
        colour=$GREEN
        [[ ${CHECK_RESULTS[i]} == ok ]] || colour=$RED
        printf '  %s%-6s%s  %8s  %s\n' "$colour" "${CHECK_RESULTS[i]}" "$PLAIN" \
            "$(seconds "${CHECK_TIMES[i]}")" "${CHECK_TITLES[i]}"
    done
    printf '\n'
}

# equal WHAT EXPECTED ACTUAL: compares, and says what differs.
equal() {
    [[ $2 == "$3" ]] && return
    note "$1 is '$3', expected '$2'"
    return 1
}
