# shellcheck shell=bash
# apt for another release of Debian than the host's: with lists, packages and state of its own, from the mirror of the host's own
# sources, and checked by the key of these. Sourced after common.sh.

OTHER_APT=()

# Prints the mirror of Debian's main archive among apt's sources, and the file that names it.
host_mirror() {
    # The dollars are apt's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI) $(SOURCESENTRY)' 'Identifier: Packages' 2>/dev/null |
        sed -n 's/:[0-9]*$//; s/^Debian|Debian|//p' | sed -n 1p
}

# other_release RELEASE DIRECTORY TYPE… : from here on other_apt is about this release, and keeps its files there. Reads the
# release's lists anew, of packages (type deb), of sources (deb-src) or of both; fails if that fails.
other_release() {
    local release=$1 place=$2 mirror file key type
    shift 2
    mirror=$(host_mirror)
    if [[ -z $mirror ]] && ((EUID == 0)); then
        apt-get -q -q update </dev/null >&2
        mirror=$(host_mirror)
    fi
    if [[ -z $mirror ]]; then
        note 'no mirror of Debian among the sources of apt (is this Debian? was apt-get update run?)' >&2
        return 1
    fi
    read -r mirror file <<<"$mirror"
    key=$(sed -nE 's/.*[Ss]igned-[Bb]y[:=] *(\/[^] ]+).*/\1/p' "$file" | sed -n 1p)
    mkdir -p "$place"/{lists/partial,archives/partial}
    for type in "$@"; do echo "$type ${key:+[signed-by=$key] }$mirror $release main"; done >"$place/sources.list"
    : >"$place/status"
    OTHER_APT=(env DEBIAN_FRONTEND=noninteractive apt-get -q -q
        -o Dir::Etc::sourcelist="$place/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o Dir::State="$place" -o Dir::State::status="$place/status" -o Dir::Cache="$place"
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none
        -o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false)
    other_apt -o APT::Update::Error-Mode=any update
}

other_apt() { "${OTHER_APT[@]}" "$@" </dev/null >&2; }
