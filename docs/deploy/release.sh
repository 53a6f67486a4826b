#!/bin/sh
# Builds what a release consists of: a binary and an SBOM (CycloneDX) for each target, Debian
# packages, and SHA256SUMS. Two runs on one commit make the same bytes.
#
#   docs/deploy/release.sh FOLDER    TARGETS="linux/amd64 darwin/arm64" builds some of them
set -eu
folder=$1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/../.."
VERSION=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
# The time of the commit is the time of all that is made of it.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
# A Debian version begins with a digit, and "~" sorts before any release.
case $VERSION in
v[0-9]* | [0-9]*.*) DEB_VERSION=$(printf %s "${VERSION#v}" | tr - '~') ;;
*) DEB_VERSION=0~git$SOURCE_DATE_EPOCH.$(printf %s "$VERSION" | tr - .) ;;
esac
export VERSION SOURCE_DATE_EPOCH DEB_VERSION
NFPM=${NFPM:-go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0}
CYCLONEDX=${CYCLONEDX:-go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0}

for target in ${TARGETS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}; do
	os=${target%/*} arch=${target#*/}
	binary=$folder/medilab-webhooks_${VERSION}_${os}_$arch
	echo "release: $target"
	GOOS=$os GOARCH=$arch docs/deploy/build.sh "$binary"
	if [ "$CYCLONEDX" != none ]; then
		$CYCLONEDX bin -json -licenses -std -noserial -notimestamp -version "$VERSION" -output "$binary.cdx.json" "$binary"
	fi
	if [ "$os" = linux ] && [ "$NFPM" != none ]; then
		BINARY=$binary ARCH=$arch $NFPM package --config docs/deploy/nfpm.yaml --packager deb \
			--target "$folder/medilab-webhooks_${VERSION}_$arch.deb"
	fi
done
cd "$folder"
# shellcheck disable=SC2035 # no name begins with a dash
sha256sum medilab-webhooks_* >SHA256SUMS
