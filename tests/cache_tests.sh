#!/bin/sh
# Runs the public tests of HTTP caches, http-tests/cache-tests, against Crestline with a `cache`.
#
#     cache_tests.sh CRESTLINE CHECKOUT
#
# The checkout must be ready to run (`npm i` in it). Ports 8790 and 8791 must be free.
set -eu
crestline=$1 checkout=$2 here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'kill $origin $proxy 2>/dev/null || true; rm -rf "$work"' EXIT
origin='' proxy=''

(cd "$checkout" && npm_config_protocol=http npm_config_port=8790 npm_config_pidfile="$work/node.pid" \
    exec node test-engine/server/server.mjs) > "$work/origin.log" 2>&1 &
origin=$!
cat > "$work/crestline.yaml" <<YAML
pid_file: $work/crestline.pid
upgrade_sock: $work/upgrade.sock
access_log: off
listeners: [{ address: "127.0.0.1:8791" }]
upstreams: { app: { backends: ["127.0.0.1:8790"], health_check: off } }
routes: [{ name: all, policies: [{ cache: { honour_client: true } }], upstream: app }]
YAML
"$crestline" -c "$work/crestline.yaml" 2> "$work/crestline.log" &
proxy=$!
for _ in $(seq 100); do
    if curl -sf -o /dev/null "http://127.0.0.1:8791/"; then break; fi
    sleep 0.2
done
(cd "$checkout" && npm_config_base=http://127.0.0.1:8791 npm_package_config_id='' \
    node --no-warnings test-engine/cli.mjs) > "$work/out"
sed -n '/^{/,$p' "$work/out" > "$work/results.json"
node "$here/cache_tests.mjs" "$checkout" "$work/results.json"
