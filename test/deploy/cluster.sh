# What docs/SCALING.md promises of two servers, run by deploy/cluster/local.sh: files go
# through HAProxy, one server dies, and the client goes on at the other.
set -euo pipefail
mkdir "$DIR/client"
cd "$DIR/client"
head -c 3000000 /dev/urandom >first
head -c 20000000 /dev/urandom >second
sealift send --name me --tls-trust-first first
kill -9 "$A"
sealift send second
sealiftd files
sealiftd verify
[ "$(sealiftd files --json | grep -c '"verified":true')" = 2 ]
[ "$(grep -h '"msg":"verified"' "$DIR"/[ab].log | wc -l)" = 2 ]
kill -9 "$B"
if sealift send --retry-for 1s first; then
	echo "nobody is there, and the file was sent" >&2
	exit 1
fi
