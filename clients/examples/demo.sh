#!/usr/bin/env bash
# The main job, called by `make demo`: start a daemon on a free loopback port, train LeNet over HTTP with
# gradctl, print the accuracy on the test split, stop the daemon.
#
#     BUILD_DIR=build/release MNIST=folder EPOCHS=3 demo.sh    # without MNIST: the built-in digits
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD_DIR:-build/release}
data=${MNIST:-digits}
epochs=${EPOCHS:-3}
work=$(mktemp -d)
daemon=

# Whatever happens, no daemon and no file stays behind.
cleanup() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed() {
    echo "demo: $1; the daemon's log:" >&2
    tail -n 20 "$work/log" >&2
    exit 1
}

"$build/gradd" --ephemeral --listen 127.0.0.1:0 --port-file "$work/port" 2>"$work/log" &
daemon=$!
for _ in $(seq 300); do
    [ ! -s "$work/port" ] || break
    kill -0 "$daemon" 2>/dev/null || failed 'gradd did not start'
    sleep 0.1
done
[ -s "$work/port" ] || failed 'gradd did not tell its port'
GRADD_SERVER=http://127.0.0.1:$(cat "$work/port")
export GRADD_SERVER
for _ in $(seq 100); do
    ! "$build/gradctl" health >/dev/null 2>&1 || break
    sleep 0.1
done
"$build/gradctl" health >/dev/null || failed 'gradd is not ready'
echo "gradd on $GRADD_SERVER"

# A bar even where stderr is no terminal, unless the terminal says it can't.
progress=always
[ "${TERM:-}" != dumb ] || progress=auto
"$build/gradctl" train --model "$here/lenet.json" --data "$data" --epochs "$epochs" --batch-size 64 --seed 0 \
    --pad 2 --scale 1/255 --mean 0.1307 --std 0.3081 --progress "$progress" ${DEMO_LOG:+--log "$DEMO_LOG"}

kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
daemon=
[ "$status" = 0 ] || failed "gradd ended with exit status $status"
echo 'gradd stopped'
