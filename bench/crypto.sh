#!/usr/bin/env bash
# Sets the cipher and checksum of crypto/ beside the standard library's, and
# beside openssl and cksum where they are installed, on 64 KiB pieces.
#
#   bench/crypto.sh [rounds, default 3]
#
# GB/s are 10^9 bytes per second. Other programs on the machine must not decide
# the ratios: the Go lines are the best of many runs of a few milliseconds, and
# openssl and cksum are measured by their processor time.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

grep -m1 'model name' /proc/cpuinfo 2>/dev/null | sed 's/.*: /processor: /' || true
go version
command -v openssl >/dev/null && openssl version
echo

go test -c -o "$work/aescbc" ./crypto/aescbc
go test -c -o "$work/cksum" ./crypto/cksum
head -c 1000000000 /dev/zero >"$work/zeros"

bench() { # bench BINARY PATTERN: lines of "name GB/s"
    "$work/$1" -test.run '^$' -test.bench "$2" -test.benchtime 100x -test.count 20 |
        awk '/MB\/s/ { sub(/^Benchmark[A-Za-z]*\//, ""); sub(/-[0-9]+$/, "", $1); sub(/\/65536$/, "", $1);
                       for (i = 2; i < NF; i++) if ($(i+1) == "MB/s") print $1, $i / 1000 }'
}

openssl_speed() { # openssl_speed NAME [-decrypt]
    command -v openssl >/dev/null || return 0
    local name=$1
    shift
    # The last line ends with thousands of bytes per second for 65536-byte pieces.
    openssl speed -seconds 1 -bytes 65536 -evp aes-256-cbc "$@" 2>/dev/null |
        awk -v name="$name" 'END { sub(/k$/, "", $NF); print name, $NF / 1e6 }'
}

system_cksum() { # all of the program: reading 1 GB from the page cache, too
    command -v cksum >/dev/null || return 0
    local TIMEFORMAT='%U %S'
    { time cksum "$work/zeros" >/dev/null; } 2>&1 |
        awk '{ print "checksum/cksum-program", 1 / ($1 + $2) }'
}

for ((i = 0; i < rounds; i++)); do
    bench aescbc 'AESCBC/.*/.*/65536$'
    openssl_speed decrypt/openssl -decrypt
    openssl_speed encrypt/openssl
    bench cksum 'Cksum/.*/65536$' | sed 's/^/checksum\//'
    system_cksum
done >"$work/results"

# The reference of each group is the standard library's line; encryption has
# openssl's as well.
sort "$work/results" | awk '
    { if ($2 > best[$1]) best[$1] = $2 }
    END {
        for (name in best) {
            group = name; sub(/\/.*/, "", group)
            ref = group == "checksum" ? "checksum/stdlib-crc32-ieee" : group "/stdlib"
            line = sprintf("%-32s %8.2f GB/s %7.2f x stdlib", name, best[name], best[name] / best[ref])
            if (best[group "/openssl"] > 0) line = line sprintf(" %7.2f x openssl", best[name] / best[group "/openssl"])
            print line
        }
    }' | sort
