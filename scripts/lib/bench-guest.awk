# With spread.awk: makes tables of lines: job file, number of the backend, requests a second, KiB a second, milliseconds, 50th and 99th percentile
# of the latency in µs, clock ticks of processor time. Needs the variables names, with commas between, and ticks, a second's.

BEGIN {
    peers = split(names, name, ",")
    compare("encrypted / LUKS", 2, 0)
    compare("encrypted / raw", 2, 1)
    compare("encrypted / plain", 2, 3)
}

{
    if (!($1 in seen)) { seen[$1] = 1; job[++jobs] = $1 }
    round = ++rounds[$1, $2]
    speed[$1, $2, round] = $1 ~ /4k/ ? $3 / 1e3 : $4 * 1024 / 1e6
    # Not more than a request's, if there were none.
    requests = $3 * $5 / 1e3
    processor[$1, $2, round] = $8 / ticks * 1e6 / (requests > 1 ? requests : 1)
    half[$1, $2, round] = $6
    most[$1, $2, round] = $7
}

END {
    for (at = 1; at <= jobs; at++) table(job[at])
}

function compare(title, above, below) {
    ratio_title[++ratios] = title
    ratio_above[ratios] = above
    ratio_below[ratios] = below
}

function table(job,    peer, at) {
    printf "\n%s (%s)\n", job, job ~ /4k/ ? "kIOPS" : "MB/s"
    printf "  %-22s %9s %19s %12s %9s %9s\n", "", "median", "min - max", "CPU us/req", "p50 us", "p99 us"
    for (peer = 0; peer < peers; peer++) {
        spread(speed, job, peer)
        printf "  %-22s %9.1f %8.1f - %8.1f", name[peer + 1], median, smallest, largest
        spread(processor, job, peer); printf " %12.2f", median
        spread(half, job, peer); printf " %9.0f", median
        spread(most, job, peer); printf " %9.0f\n", median
    }
    for (at = 1; at <= ratios; at++) ratio_line(job, at)
}

# Quotients round by round: those of one round were measured under the same conditions.
function ratio_line(job, at,    n) {
    count = 0
    for (n = 1; n <= rounds[job, ratio_above[at]]; n++)
        add(quotient(speed[job, ratio_above[at], n], speed[job, ratio_below[at], n]))
    summarise()
    printf "    %-20s %9.2f %8.2f - %8.2f", ratio_title[at], median, smallest, largest
    count = 0
    for (n = 1; n <= rounds[job, ratio_above[at]]; n++)
        add(quotient(processor[job, ratio_above[at], n], processor[job, ratio_below[at], n]))
    summarise()
    printf " %12.2f\n", median
}

function quotient(above, below) { return below > 0 ? above / below : 0 }

function spread(figures, job, peer,    n) {
    count = 0
    for (n = 1; n <= rounds[job, peer]; n++) add(figures[job, peer, n])
    summarise()
}
