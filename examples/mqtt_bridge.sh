#!/bin/sh
# Publishes every event on an MQTT broker, under parkingd/NODE/TYPE.
#
#   examples/mqtt_bridge.sh BROKER [FLAGS of parkingd-ctl watch]
#   examples/mqtt_bridge.sh localhost --type admitted,exited,denied
#
# Needs mosquitto_pub (Debian: mosquitto-clients). BROKER is HOST or HOST:PORT.
set -eu
broker=$1
shift

# shellcheck disable=SC2016 # These are variables of the inner shell.
exec parkingd-ctl watch "$@" -- sh -c '
    url="mqtt://$0/parkingd/$PARKINGD_NODE/$PARKINGD_TYPE"
    exec mosquitto_pub --quiet -L "$url" -q 1 -m "$PARKINGD_EVENT"' "$broker"
