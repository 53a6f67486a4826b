#!/bin/bash
# Checks the files of this folder by what is on this machine, and says what is not: the Debian
# package, the Helm chart, the alert rules, the image, and that a release is the same bytes when
# it is built twice. `make deploy-check` runs it; `make drive` checks the rest.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "deploy: FAILED ($?; 124 is out of time): $BASH_COMMAND" >&2' ERR
set -E
note() { echo "deploy: note: $*"; }

# Tools that Debian lacks are built; what a short try has compiled stays in Go's cache, and the
# next goes on from there.
build_tool() { # NAME MODULE
	command -v "$1" >/dev/null 2>&1 && return 0
	GOBIN=$work timeout 60 go install "$2" >/dev/null 2>&1 || note "no $1: not built within a minute"
}
build_tool nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
build_tool helm helm.sh/helm/v3/cmd/helm@v3.19.0
export PATH=$work:$PATH
# With the flags of `make drive`, whose packages are then in Go's cache.
timeout 240 go test -count=1 -vet=off -ldflags=-w -run 'Helm|Debian' -v ./cmd/e2e | grep -E '^(---|ok|FAIL|    [a-z_]+\.go)' |
	sed 's/^--- SKIP/deploy: note: skipped/'

if command -v promtool >/dev/null 2>&1; then
	promtool check rules docs/deploy/prometheus-rules.yml
else
	note "no check by promtool: Debian's package prometheus has it"
fi

# Twice, in folders of different names. What is not committed is no part of a release.
if git rev-parse HEAD >/dev/null 2>&1; then
	for n in one another; do
		git clone -q "$root" "$work/$n"
		(cd "$work/$n" && CYCLONEDX=none NFPM=none TARGETS="$(go env GOOS)/$(go env GOARCH)" timeout 240 docs/deploy/release.sh "$work/$n/dist" >/dev/null)
	done
	cmp "$work/one/dist/SHA256SUMS" "$work/another/dist/SHA256SUMS"
	binary=$(ls "$work"/one/dist/medilab-webhooks_*_*_*)
	"$binary" version | grep -F "commit $(git rev-parse HEAD)"
	echo "deploy: two builds are the same: $(cut -c1-16 "$work/one/dist/SHA256SUMS")"
	# As in the image: nothing but the binary, another user, and nothing that can be written.
	if [ "$(id -u)" = 0 ] && command -v chroot >/dev/null; then
		mkdir "$work/image"
		cp "$binary" "$work/image/medilab-webhooks"
		chmod 755 "$work" "$work/image"
		chroot --userspec=65532:65532 "$work/image" /medilab-webhooks version >/dev/null
		echo "deploy: the binary needs nothing beside it"
	fi
fi

# The image, of steps that fetch nothing: in place of the base with Go there is one that holds what
# the steps call, and Go and its modules are this machine's. The binary is that of the release.
image_by_buildah() {
	local store=(buildah --storage-driver vfs --root "$work/containers" --runroot "$work/run") base=$work/base program path library
	mkdir -p "$base/etc/ssl/certs" "$base/usr/bin" "$base/tmp"
	ln -s usr/bin "$base/bin"
	touch "$base/etc/ssl/certs/ca-certificates.crt"
	for program in sh mkdir dirname; do
		path=$(readlink -f "$(command -v $program)")
		cp "$path" "$base/usr/bin/$program"
		for library in $(ldd "$path" | grep -o '/[^ ]*'); do
			mkdir -p "$base$(dirname "$library")"
			cp -L "$library" "$base$library"
		done
	done
	printf 'FROM scratch\nCOPY . /\nENV PATH=/go/bin:/bin GOROOT=/go GOMODCACHE=/modules GOCACHE=/cache GOPROXY=off\n' >"$work/Base"
	echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy"
	local bud=("${store[@]}" bud -q --isolation chroot --pull-never --format docker --signature-policy "$work/policy")
	if ! "${bud[@]}" -f "$work/Base" -t docker.io/library/golang:1.26-bookworm "$base" >/dev/null 2>"$work/why" ||
		! "${store[@]}" run --isolation chroot "$("${store[@]}" from --pull-never --signature-policy "$work/policy" golang:1.26-bookworm)" mkdir /tmp/try 2>"$work/why"; then
		note "the image is not built: buildah may not run its steps here: $(tail -n 1 "$work/why")"
		return 0
	fi
	mkdir -p "$work/cache"
	go mod download # more than builds and tests have asked for so far
	timeout 240 "${bud[@]}" -v "$(go env GOROOT):/go:ro" -v "$(go env GOMODCACHE):/modules" -v "$(go env GOCACHE):/cache" \
		--build-arg VERSION="$(git describe --tags --always)" --build-arg COMMIT="$(git rev-parse HEAD)" \
		-f "$work/one/docs/deploy/Dockerfile" --ignorefile "$work/one/docs/deploy/Dockerfile.dockerignore" -t check "$work/one" >/dev/null
	local made mounted
	made=$("${store[@]}" from --pull-never --signature-policy "$work/policy" localhost/check)
	mounted=$("${store[@]}" mount "$made")
	cmp "$binary" "$mounted/medilab-webhooks"
	[ "$(cd "$mounted" && find . -type f | grep -vE '^./(dev|proc|sys)/' | sort)" = "$(printf './etc/ssl/certs/ca-certificates.crt\n./medilab-webhooks')" ]
	"${store[@]}" run --isolation chroot "$made" /medilab-webhooks version
	"${store[@]}" inspect --format '{{.Docker.Config.User}} {{.Docker.Config.Healthcheck.Test}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}}' "$made" |
		grep -Fx '65532:65532 [CMD /medilab-webhooks healthcheck] [/medilab-webhooks] [serve]'
	echo "deploy: the image is built, and holds the release's binary"
}

if docker info >/dev/null 2>&1; then
	docker build -q -f docs/deploy/Dockerfile -t medilab-webhooks:check .
	docker run --rm --read-only medilab-webhooks:check version
elif command -v buildah >/dev/null && [ -n "${binary:-}" ]; then
	image_by_buildah
else
	note "the image is not built: there is no container engine"
fi
