#!/usr/bin/env bash
# Runs every command of the README, in its order, in a copy of the checkout.
# `go test ./...` and the full benchmark are left to the steps of CI that run them.
set -euo pipefail
top=$(git rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
git -C "$top" ls-files -z | (cd "$top" && xargs -0 cp --parents -t "$work")
cd "$work"
export SEALIFT_KNOWN_SERVERS="$work/known_servers" # and not the user's
awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' README.md | grep -v -x 'go test ./...' > commands
while IFS= read -r line; do
	printf '\n$ %s\n' "$line"
	case $line in
	'go -C bench run .')
		line='go -C bench run . --tiny' ;;
	esac
	eval "$line" </dev/null
	case $line in
	*--addr-file\ srv/addr\ \&)
		until [ -s srv/addr ]; do kill -0 $!; sleep 0.1; done ;;
	esac
done < commands
kill %%
wait %%
