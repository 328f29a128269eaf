#!/usr/bin/env bash
# Replays the requests recorded from a real CiviCRM (../shared/golden) against a fresh server of ours.
# GOLDEN_DATABASE=mysql://… replays on an empty MariaDB database instead of SQLite.
# Usage: tests/golden.sh [further options of replay.py, such as --only contact --show 5]
set -euo pipefail
cd "$(dirname "$0")/.."

# The share of the public answers that must hold: all of them do, so none may fall.
BAR=1.0

work=$(mktemp -d)
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/settings.ini" <<INI
[server]
port = $port
base_url = http://127.0.0.1:$port
site_key = golden-site-key
[database]
url = ${GOLDEN_DATABASE:-sqlite:///$work/golden.sqlite}
[scheduler]
enabled = no
[log]
level = error
[user:admin]
api_key = golden-admin-key
permissions = *
[user:limited]
api_key = golden-limited-key
permissions = access AJAX API, access CiviCRM, view my contact
INI

TZ=UTC .venv/bin/python -m civiapi serve --config "$work/settings.ini" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT

for _ in $(seq 100); do
    curl --silent --fail --output /dev/null "http://127.0.0.1:$port/healthz" && break
    kill -0 $server || exit 1
    sleep 0.1
done
TZ=UTC .venv/bin/python ../shared/golden/replay.py "http://127.0.0.1:$port" \
    --site-key golden-site-key --admin golden-admin-key --limited golden-limited-key --bar "$BAR" "$@"
