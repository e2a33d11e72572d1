#!/bin/sh
# Opens the barrier of one gate for every car that is admitted there.
#
#   examples/barrier_relay.sh GATE CMD ARG...
#   examples/barrier_relay.sh 1 usbrelay BITFT_1=1
#
# Runs beside the daemon of that gate and does CMD for each car. What is told late, because daemon
# or network were away, opens nothing any more: that driver has pressed the button again.
set -eu
gate=$1
shift

# shellcheck disable=SC2016 # These are variables of the inner shell.
exec parkingd-ctl watch --type admitted --kill-after 5 -- sh -c '
    [ "$PARKINGD_GATE" = "$0" ] || exit 0
    [ $(($(date +%s) - $(date -d "$PARKINGD_TIME" +%s))) -le 10 ] || { echo too late; exit 1; } >&2
    exec "$@"' "$gate" "$@"
