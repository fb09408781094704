#!/usr/bin/env bash
# The main job, called by `make demo`: start a daemon on a free loopback port, put MNIST into it (or take the
# digits that it has), create LeNet, train it as a job, follow that, print the accuracy on the test split, stop.
#
#     BUILD_DIR=build/release MNIST=folder EPOCHS=3 demo.sh    # without MNIST: the built-in digits
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD_DIR:-build/release}
mnist=${MNIST:-}
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
data=digits
if [ -n "$mnist" ]; then
    data=mnist
    "$build/gradctl" data put "$mnist" "$data" --progress "$progress"
fi
"$build/gradctl" model create "$here/lenet.json" --output name
"$build/gradctl" job start --model lenet --data "$data" --epochs "$epochs" --batch-size 64 --seed 0 \
    --pad 2 --scale 1/255 --mean 0.1307 --std 0.3081 --watch --progress "$progress"
if [ -n "${DEMO_LOG:-}" ]; then # step,loss of each step
    "$build/gradctl" metrics get lenet --keys loss --output csv | tr -d '\r' | cut -d , -f 1,3 >"$DEMO_LOG"
fi
echo "the dashboard is at $GRADD_SERVER/ while gradd runs"

kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
daemon=
[ "$status" = 0 ] || failed "gradd ended with exit status $status"
echo 'gradd stopped'
