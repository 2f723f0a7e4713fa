#!/usr/bin/env bash
# Builds for Linux into dist/: both programs, deb and rpm, and what deploy/Containerfile copies.
#
#   bash deploy/build.sh [ARCH...]     default: amd64 arm64
#
# VERSION is the version of all of it, such as 1.2.3; by default that of the tag at HEAD, or
# one that sorts before every release, with the date of HEAD. OUT is another folder than dist,
# which must be empty or absent. The same commit gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
[ $# -gt 0 ] || set -- amd64 arm64
if [ -z "${OUT:-}" ]; then
	rm -rf dist
	OUT=dist
fi
mkdir -p "$OUT"
out=$(cd "$OUT" && pwd)
[ -z "$(ls -A "$out")" ] || { echo "$out is not empty" >&2; exit 1; }

: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
if [ -z "${VERSION:-}" ]; then
	VERSION=$(git describe --exact-match --tags --match 'v[0-9]*' 2>/dev/null ||
		TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=0.0.0-dev.%cd.%h)
fi
export SOURCE_DATE_EPOCH VERSION=${VERSION#v} CGO_ENABLED=0
export MAINTAINER="${MAINTAINER:-Sealift <sealift@localhost>}"

build() { # build OS ARCH DIR
	GOOS=$1 GOARCH=$2 go build -trimpath -buildvcs=false -o "$3/" \
		-ldflags "-s -w -X sealift/internal/version.released=v$VERSION" ./cmd/sealift ./cmd/sealiftd
}

mkdir "$out/share" "$out/here" "$out/packages"

# Manual pages and completions come from a program that runs here.
build "$(go env GOHOSTOS)" "$(go env GOHOSTARCH)" "$out/here"
for program in sealift sealiftd; do
	"$out/here/$program" man --to "$out/share"
	gzip -9n "$out/share/$program.1"
	for shell in bash zsh fish; do
		"$out/here/$program" completion $shell >"$out/share/$program.$shell"
	done
done
rm -r "$out/here"

for arch; do
	root=$out/$arch
	mkdir -p "$root/bin" "$root/image/usr/bin"
	build linux "$arch" "$root/bin"
	cp "$root/bin/sealiftd" "$root/image/usr/bin/"
	ln -s "$PWD" "$root/top"
	ln -s ../share "$root/share"
	for format in deb rpm; do
		(cd "$root" && ARCH=$arch go run "$nfpm" package -f top/deploy/nfpm.yaml -p $format -t ../packages/)
	done
	rm "$root/top" "$root/share"
done
mkdir -p "$out/data"
mkdir -m 0750 "$out/data/sealift"
