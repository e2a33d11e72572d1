#!/usr/bin/env bash
# A camera feeds `enter`: one plate a line on standard input; COMMAND opens the barrier.
#
#   read-plates | examples/camera.sh GATE COMMAND [ARGUMENT]...
#
# Each car gets one request id, made before it is asked for the first time. While there is no
# answer, or nobody has decided, the same id is asked again: however often it is, the car enters
# once. One line for each car says what became of it.
set -u
gate=${1:?GATE is missing}
shift
: "${1:?COMMAND is missing}"
attempts=5
pause_s=${CAMERA_PAUSE_S:-0.5}

# One word: admitted, again, or the reason why not.
ask() {
    local answer status
    answer=$(parkingd-ctl enter "$1" "$gate" --request-id "$2" --timeout 2 --json 2>/dev/null)
    status=$?
    case "$status $answer" in
        0\ *) echo admitted ;;
        1\ *'"no_owner"'* | 1\ *'"not_ready"'* | 1\ *'"draining"'*) echo again ;; # undecided
        3\ * | 4\ *) echo again ;;                              # no daemon, no answer
        6\ *) echo again ;;                                     # its disk fails, or it is leaving
        1\ *) sed -n 's/.*"reason": "\([a-z_]*\)".*/\1/p' <<<"$answer" ;;
        *) echo "exit status $status" ;;
    esac
}

while IFS= read -r plate; do
    id=$(tr -dc 0-9a-f </dev/urandom | head -c 32)
    result=again
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        result=$(ask "$plate" "$id" </dev/null)
        [[ $result == again ]] || break
        sleep "$pause_s"
    done
    case $result in
        admitted) "$@" && echo "$plate: admitted" || echo "$plate: the barrier did not open" ;;
        again) echo "$plate: nobody answered; repeat it with --request-id $id" ;;
        *) echo "$plate: denied, $result" ;;
    esac
done
