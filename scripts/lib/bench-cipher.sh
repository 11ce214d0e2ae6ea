# shellcheck shell=bash
# Compares the kernels of the cipher with those of others (benches/comparison). Sourced after common.sh.

COMPARISON=$ROOT/benches/comparison
# What cargo and criterion write.
COMPARISON_TARGET=$ROOT/target/comparison

# bench_cipher [--rounds N] [--newest-openssl]
bench_cipher() {
    local rounds=5 round
    # Not --locked: the dependencies of sealblk change without anybody building this.
    local -a cargo=(env "CARGO_TARGET_DIR=$COMPARISON_TARGET" "CRITERION_HOME=$COMPARISON_TARGET/criterion"
        cargo bench --quiet --manifest-path "$COMPARISON/Cargo.toml")
    while (($#)); do
        case $1 in
        --rounds) rounds=${2:?}; shift ;;
        --newest-openssl) cargo+=(--features newest-openssl) ;;
        *) die "unknown argument for --cipher: $1 (there are --rounds, --newest-openssl)" ;;
        esac
        shift
    done
    ensure_cipher_packages "${cargo[*]}"
    heading 'Building (AWS-LC takes minutes the first time)'
    "${cargo[@]}" --no-run
    heading 'Measuring'
    mkdir -p "$ROOT/target/bench"
    : >"$ROOT/target/bench/cipher.log"
    : >"$ROOT/target/bench/cipher"
    for ((round = 1; round <= rounds; round++)); do
        note "round $round of $rounds"
        # Other versions measured earlier must not come into the table.
        rm -rf "$COMPARISON_TARGET/criterion"
        "${cargo[@]}" -- --noplot --warm-up-time 0.2 --measurement-time 0.6 >>"$ROOT/target/bench/cipher.log" 2>&1 ||
            die "the benchmark failed, see target/bench/cipher.log"
        fastest >>"$ROOT/target/bench/cipher"
    done
    heading 'Results'
    note "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | sed -n 1p); data units of 512 bytes; GB/s, medians of $rounds rounds, of each the"
    note 'fastest of 100 samples (smallest - largest of the rounds); below, how many times as fast as the others the fastest is, round by round'
    awk -F '\t' -f "$ROOT/scripts/lib/spread.awk" -f "$ROOT/scripts/lib/bench-cipher.awk" \
        "$ROOT/target/bench/cipher"
}

# What is needed besides what building sealblk needs.
ensure_cipher_packages() {
    local -a missing=()
    can_compile || missing+=(gcc libc6-dev)
    if [[ $1 == *newest-openssl* ]]; then
        have make || missing+=(make)
        have perl || missing+=(perl)
    else
        printf '#include <openssl/evp.h>\n' | cc -E -x c -o /dev/null - 2>/dev/null || missing+=(libssl-dev)
        have pkg-config || missing+=(pkg-config)
    fi
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! have apt-get; then
        die "missing: ${missing[*]} (Debian package names); install them and run this again"
    fi
    note "installing ${missing[*]}"
    apt-get -q update </dev/null
    install_packages "${missing[@]}" </dev/null || die "could not install ${missing[*]}"
}

# Of the last round: direction, bytes, name, GB/s. That is the fastest of 100 samples of some ms, in which nobody else was given
# the processor.
fastest() {
    local report line
    find "$COMPARISON_TARGET/criterion" -path '*/new/benchmark.json' | while read -r report; do
        line=$(sed -nE 's/.*"group_id":"([^"]*)","function_id":"([^"]*)","value_str":"([^"]*)".*/\1\t\3\t\2/p' "$report")
        # Two lists: how often each sample did it, and how many nanoseconds that took.
        sed -E 's/.*"iters":\[([^]]*)\],"times":\[([^]]*)\].*/\1 \2/' "${report%/*}/sample.json" |
            awk -v line="$line" '{
                samples = split($1, times, ","); split($2, nanoseconds, ","); split(line, field, "\t")
                for (n = 1; n <= samples; n++) {
                    speed = field[2] * times[n] / nanoseconds[n]
                    if (speed > most) most = speed
                }
                printf "%s\t%.3f\n", line, most
            }'
    done
}
