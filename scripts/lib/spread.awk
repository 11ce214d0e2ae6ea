# Smallest, middle and largest of several figures. First count = 0, then add() each, then summarise().

# Keeps the figures in order.
function add(figure,    at) {
    for (at = count++; at > 0 && sorted[at] > figure; at--) sorted[at + 1] = sorted[at]
    sorted[at + 1] = figure
}

function summarise() {
    smallest = sorted[1]
    largest = sorted[count]
    median = (sorted[int((count + 1) / 2)] + sorted[int(count / 2) + 1]) / 2
}
