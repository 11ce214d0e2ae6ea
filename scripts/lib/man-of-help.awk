# Makes a manual page of what a program says with --help. Variables: name, section, version.
function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    sub(/^[.']/, "\\\\\\&&", text)
    return text
}
function add(line) { body = body line "\n" }
function capital(text) { return toupper(substr(text, 1, 1)) substr(text, 2) }
NR == 1 { title = tolower(substr($0, 1, 1)) substr($0, 2); sub(/\.$/, "", title); next }
/^Usage: / { usage = substr($0, 8); next }
/^Options:$/ { part = "options"; add(".SH OPTIONS"); next }
/^Examples:$/ { part = "examples"; add(".SH EXAMPLES\n.nf"); next }
/^Exit status: / {
    if (part == "examples") add(".fi")
    part = "status"
    add(".SH EXIT STATUS\n" roff(capital(substr($0, 14))))
    next
}
part == "options" && /^ +-/ {
    sub(/^ +/, "")
    add(".TP\n\\fB" roff($0) "\\fR")
    fresh = 1
    blank = 0
    next
}
# Between an option's paragraphs, or after its last one.
part == "options" && /^$/ { blank = !fresh; next }
/^$/ { if (body != "" && part != "examples") add(".PP"); next }
{
    if (blank) add(".IP")
    fresh = blank = 0
    if (part != "examples") sub(/^ +/, "")
    add(roff($0))
}
END {
    sub(/(\.PP\n)+$/, "", body)
    gsub(/(\.PP\n)+\.SH/, ".SH", body)
    printf ".TH %s %s \"\" \"%s %s\"\n.SH NAME\n%s \\- %s\n", toupper(name), section, name, version, name, roff(title)
    printf ".SH SYNOPSIS\n%s\n.SH DESCRIPTION\n%s", roff(usage), body
}
