# With spread.awk: makes tables of lines: direction, bytes in a row, name, GB/s; a line each for every round.

BEGIN { sizes = split("512 4096 65536 1048576", size, " ") }

{
    if (!($3 in seen)) { seen[$3] = 1; name[++names] = $3 }
    round = ++rounds[$1, $2, $3]
    speed[$1, $2, $3, round] = $4
}

END {
    by_speed()
    table("encrypt")
    table("decrypt")
}

# The fastest first.
function by_speed(    at, other, held) {
    for (at = 1; at <= names; at++) { figures("encrypt", size[sizes], name[at]); typical[name[at]] = median }
    for (at = 1; at <= names; at++)
        for (other = at + 1; other <= names; other++)
            if (typical[name[other]] > typical[name[at]]) { held = name[at]; name[at] = name[other]; name[other] = held }
}

function table(direction,    at, n) {
    printf "\n%-24s", direction
    for (n = 1; n <= sizes; n++) printf " %19s", size[n] " bytes"
    print ""
    for (at = 1; at <= names; at++) {
        printf "  %-22s", name[at]
        for (n = 1; n <= sizes; n++) { figures(direction, size[n], name[at]); shown() }
        print ""
    }
    for (at = 2; at <= names; at++) {
        printf "    / %-18s", name[at]
        for (n = 1; n <= sizes; n++) { quotients(direction, size[n], name[at]); shown() }
        print ""
    }
}

function shown() { printf " %5.2f (%5.2f -%5.2f)", median, smallest, largest }

function figures(direction, bytes, who,    n) {
    count = 0
    for (n = 1; n <= rounds[direction, bytes, who]; n++) add(speed[direction, bytes, who, n])
    summarise()
}

# How many times as fast as another one the first of the table is, round by round.
function quotients(direction, bytes, who,    n) {
    count = 0
    for (n = 1; n <= rounds[direction, bytes, who]; n++)
        add(speed[direction, bytes, name[1], n] / speed[direction, bytes, who, n])
    summarise()
}
