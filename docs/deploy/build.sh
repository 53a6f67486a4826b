#!/bin/sh
# Builds one static binary. The same commit and version of Go make the same bytes, wherever.
#
#   docs/deploy/build.sh OUTPUT      for GOOS and GOARCH; the Dockerfile, the release and CI use it
#
# VERSION and COMMIT are git's, unless they are given, as where there is no git.
set -eu
output=$1
case $output in /*) ;; *) output=$PWD/$output ;; esac
cd "$(dirname "$0")/../.."
VERSION=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
export CGO_ENABLED=0
exec "${GO:-go}" build -trimpath -buildvcs=false -mod=readonly \
	-ldflags "-s -w -buildid= -X main.version=$VERSION -X main.commit=$COMMIT" -o "$output" ./cmd/medilab-webhooks
