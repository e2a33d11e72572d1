#!/bin/sh
# Posts every event to a web address as JSON.
#
#   examples/webhook.sh URL [FLAGS of parkingd-ctl watch]
#   examples/webhook.sh https://example.org/parking --type admitted,exited
#
# A server that does not answer, or with 5xx, is asked twice more. What it did not take is said and
# counted, and the next event is posted; with --stop-on-error this ends there instead, and says with
# which --from it goes on.
set -eu
url=$1
shift

exec parkingd-ctl watch "$@" -- curl --silent --show-error --fail --max-time 2 \
    --retry 2 --retry-delay 1 --retry-connrefused \
    --header 'Content-Type: application/json' --data-binary @- --output /dev/null "$url"
