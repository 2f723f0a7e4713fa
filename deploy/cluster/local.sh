#!/usr/bin/env bash
# Runs all of it on this machine, on the loopback and in a new directory: PostgreSQL, an S3
# server (versitygw), HAProxy, and two sealiftd behind it. Then it runs a command, or waits
# for Ctrl-C, and ends and removes all.
#
#   bash deploy/cluster/local.sh [COMMAND [ARG...]]
#
# The command finds sealift and sealiftd in its PATH, and in its environment SEALIFT_SERVER
# (HAProxy), SEALIFT_REGISTRY and SEALIFT_FILES with what gives access to them, A and B, the
# process ids of the two servers, and DIR, with their logs. BASE is the first of seven ports.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
base=${BASE:-$((20000 + RANDOM % 10000))}
DIR=$(mktemp -d)
chmod 711 "$DIR"
finish() {
	trap - EXIT INT TERM
	kill $(jobs -p) 2>/dev/null || true
	[ ! -d "$DIR/pg/data" ] || as_postgres "$pg/pg_ctl" -D "$DIR/pg/data" -m immediate -s stop || true
	wait
	rm -rf "$DIR"
}
trap finish EXIT
trap 'exit 1' INT TERM

# PostgreSQL does not run as root.
as_postgres() {
	if [ "$(id -u)" = 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups "$@"; else "$@"; fi
}

# until_true COMMAND...: waits for it, a minute at most.
until_true() {
	for _ in $(seq 600); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	echo "waited in vain for: $*" >&2
	tail -n 5 "$DIR"/*.log >&2
	return 1
}

# program NAME PATH...: the program of that name, or else the first of the paths.
program() {
	command -v "$1" || ls -d "${@:2}" 2>/dev/null | head -n 1 | grep . || { echo "$1 is missing, see docs/SCALING.md" >&2; return 1; }
}
pg=$(dirname "$(readlink -f "$(program initdb $(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -n 1))")")
versitygw=$(program versitygw "$(go env GOPATH)/bin/versitygw" /tmp/bin/versitygw)
haproxy=$(program haproxy /usr/sbin/haproxy)

mkdir "$DIR/bin" "$DIR/pg" "$DIR/a" "$DIR/b"
go build -C "$top" -o "$DIR/bin/" ./cmd/sealift ./cmd/sealiftd
export PATH=$DIR/bin:$PATH
random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# --- PostgreSQL
export PGPASSWORD=$(random)
printf %s "$PGPASSWORD" >"$DIR/pg/password"
[ "$(id -u)" != 0 ] || chown -R postgres: "$DIR/pg"
chmod 700 "$DIR/pg"
(
	cd "$DIR/pg"
	as_postgres "$pg/initdb" -D data -U sealift -A scram-sha-256 --pwfile password >/dev/null
	as_postgres "$pg/pg_ctl" -D data -l log -s -w -o "-c listen_addresses=127.0.0.1 -c port=$base -c unix_socket_directories=" start
)
"$pg/createdb" -h 127.0.0.1 -p "$base" -U sealift sealift

# --- the S3 server: a folder is a bucket
export AWS_ACCESS_KEY_ID=sealift AWS_SECRET_ACCESS_KEY=$(random)
mkdir -p "$DIR/s3/sealift"
ROOT_ACCESS_KEY=$AWS_ACCESS_KEY_ID ROOT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY \
	"$versitygw" \
	--quiet --port "127.0.0.1:$((base + 1))" posix "$DIR/s3" >"$DIR/s3.log" 2>&1 &

# --- two sealiftd
export SEALIFT_REGISTRY="postgres://sealift@127.0.0.1:$base/sealift"
export SEALIFT_FILES="s3://sealift/store?endpoint=http://127.0.0.1:$((base + 1))&region=us-east-1"
export SEALIFT_ADMIN_TOKEN=$(random)
(umask 077 && printf '%s\n' "$SEALIFT_ADMIN_TOKEN" >"$DIR/token")
serve() { # NAME PORT ADMIN-PORT
	exec env -u SEALIFT_ADMIN_TOKEN sealiftd serve --dir "$DIR/$1" --listen "127.0.0.1:$2" \
		--proxy-protocol --trusted-proxies 127.0.0.1 \
		--admin "0.0.0.0:$3" --admin-token-file "$DIR/token" 2>"$DIR/$1.log"
}
until_true bash -c "exec 3<>/dev/tcp/127.0.0.1/$((base + 1))"
serve a $((base + 2)) $((base + 3)) & A=$!
serve b $((base + 4)) $((base + 5)) & B=$!
until_true sealiftd health --addr "127.0.0.1:$((base + 2))"
until_true sealiftd health --addr "127.0.0.1:$((base + 4))"

# --- HAProxy
export SEALIFT_BIND=127.0.0.1:$((base + 6))
SEALIFT_A=127.0.0.1:$((base + 2)) SEALIFT_A_ADMIN=$((base + 3)) \
SEALIFT_B=127.0.0.1:$((base + 4)) SEALIFT_B_ADMIN=$((base + 5)) \
	"$haproxy" -db -f "$top/deploy/cluster/haproxy.cfg" >"$DIR/haproxy.log" 2>&1 &
until_true sealiftd health --addr "$SEALIFT_BIND"
unset SEALIFT_BIND SEALIFT_ADMIN_TOKEN

export A B DIR SEALIFT_SERVER=127.0.0.1:$((base + 6)) SEALIFT_KNOWN_SERVERS=$DIR/known_servers
if [ $# -gt 0 ]; then
	"$@"
	exit
fi
cat <<END
In another terminal:
             export PATH=$DIR/bin:\$PATH
A client:    cd \$(mktemp -d) && sealift send --server $SEALIFT_SERVER --name me FILE
The files:   AWS_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY PGPASSWORD=$PGPASSWORD \\
             sealiftd files --registry '$SEALIFT_REGISTRY' --files '$SEALIFT_FILES'
Logs:        $DIR/a.log $DIR/b.log
Ctrl-C ends it and removes all.
END
wait
