package e2e

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"go.yaml.in/yaml/v4"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// tool returns the program that a variable names, or that is installed.
func tool(t *testing.T, variable, program string) string {
	if path := os.Getenv(variable); path != "" {
		return path
	}
	return installed(t, program)
}

// prints runs a program in the repository's root and returns what it prints.
func prints(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Dir, c.Env = "../..", append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func mustPrint(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := prints(t, env, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// The files name settings and commands that the product has.
func TestDeployFilesNameSettings(t *testing.T) {
	t.Parallel()
	reference := read(t, "docs/reference.md")
	named := regexp.MustCompile(`\bMEDILAB_[A-Z_]+|\bDATABASE_URL\b`)
	seen := 0
	err := filepath.WalkDir("../../docs/deploy", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range named.FindAllString(string(text), -1) {
			if seen++; !strings.Contains(reference, "| `"+name+"`") && !strings.Contains(reference, ", `"+name+"`") {
				t.Errorf("%s sets %s, which is no setting", path, name)
			}
		}
		return err
	})
	if err != nil || seen < 20 {
		t.Errorf("%d settings are named: %v", seen, err)
	}
	var compose struct {
		Services map[string]struct {
			ReadOnly    bool `yaml:"read_only"`
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "docs/deploy/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	check := compose.Services["webhooks"].Healthcheck.Test
	if !compose.Services["webhooks"].ReadOnly || len(check) < 3 || check[1] != "/medilab-webhooks" {
		t.Fatalf("the compose file says %+v", compose)
	}
	p := start(t)
	p.command(0, "", check[2:]...)
	if !strings.Contains(read(t, "docs/deploy/Dockerfile"), `HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/medilab-webhooks", "healthcheck"]`) {
		t.Error("the Dockerfile has another health check")
	}
	p.command(0, "", "healthcheck")
	p.stop()
	p.command(1, "", "healthcheck")
}

// The compose file is one by the schema of the Compose Specification.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	validate := func(text string) error {
		var file map[string]any
		if err := yaml.Unmarshal([]byte(text), &file); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(file)
	}
	text := read(t, "docs/deploy/compose.yaml")
	if err := validate(text); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"read_only: [true]", "reed_only: true"} {
		if err := validate(strings.Replace(text, "read_only: true", wrong, 1)); err == nil {
			t.Errorf("the schema allows %s", wrong)
		}
	}
}

// object is what the test looks at of a rendered object of Kubernetes.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Replicas int
		Strategy struct {
			Type          string
			RollingUpdate map[string]int `yaml:"rollingUpdate"`
		}
		Selector       map[string]any
		MaxUnavailable int      `yaml:"maxUnavailable"`
		PolicyTypes    []string `yaml:"policyTypes"`
		Template       struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				SecurityContext struct {
					RunAsNonRoot bool `yaml:"runAsNonRoot"`
				} `yaml:"securityContext"`
				Containers []struct {
					Env []struct {
						Name, Value string
						ValueFrom   struct {
							SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
						} `yaml:"valueFrom"`
					}
					LivenessProbe   probe `yaml:"livenessProbe"`
					ReadinessProbe  probe `yaml:"readinessProbe"`
					SecurityContext struct {
						ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
						AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
						Capabilities             struct{ Drop []string }
					} `yaml:"securityContext"`
				}
			}
		}
	}
}

type probe struct {
	HTTPGet struct{ Path string } `yaml:"httpGet"`
}

func render(t *testing.T, helm string, args ...string) (all map[string][]object) {
	t.Helper()
	out := mustPrint(t, nil, helm, append([]string{"template", "clinic", "docs/deploy/helm", "--kube-version", "1.31.0"}, args...)...)
	all = map[string][]object{}
	for in := yaml.NewDecoder(strings.NewReader(out)); ; {
		var o object
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		all[o.Kind] = append(all[o.Kind], o)
	}
}

func TestHelmChart(t *testing.T) {
	t.Parallel()
	helm := tool(t, "MEDILAB_HELM", "helm")
	mustPrint(t, nil, helm, "lint", "--strict", "docs/deploy/helm")
	for _, all := range []map[string][]object{render(t, helm), render(t, helm, "-f", "cmd/e2e/testdata/helm-split.yaml")} {
		roles := ""
		for _, d := range all["Deployment"] {
			pod := d.Spec.Template.Spec
			c := pod.Containers[0]
			if !pod.SecurityContext.RunAsNonRoot || !c.SecurityContext.ReadOnlyRootFilesystem || c.SecurityContext.AllowPrivilegeEscalation == nil ||
				*c.SecurityContext.AllowPrivilegeEscalation || !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) {
				t.Errorf("%s may do too much: %+v", d.Metadata.Name, c.SecurityContext)
			}
			if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
				t.Errorf("%s is probed at %+v and %+v", d.Metadata.Name, c.LivenessProbe, c.ReadinessProbe)
			}
			env := map[string]string{}
			for _, e := range c.Env {
				env[e.Name] = e.Value + e.ValueFrom.SecretKeyRef.Name
			}
			roles += env["MEDILAB_ROLES"] + ","
			if env["DATABASE_URL"] != "medilab-webhooks" || env["MEDILAB_TOKEN"] != "medilab-webhooks" || env["MEDILAB_KEYS"] != "/keys/keys.json" || env["MEDILAB_DATA_DIR"] != "/data" {
				t.Errorf("%s has the settings %v", d.Metadata.Name, env)
			}
			if d.Spec.Strategy.Type == "RollingUpdate" && !maps.Equal(d.Spec.Strategy.RollingUpdate, map[string]int{"maxUnavailable": 0, "maxSurge": 1}) {
				t.Errorf("%s is replaced by %+v", d.Metadata.Name, d.Spec.Strategy)
			}
			labels := d.Spec.Template.Metadata.Labels
			selected := func(o object, selector any) bool {
				matches, ok := selector.(map[string]any)
				for name, value := range matches {
					ok = ok && labels[name] == value
				}
				return ok && len(matches) > 0
			}
			if api := strings.Contains(env["MEDILAB_ROLES"], "api"); selected(all["Service"][0], all["Service"][0].Spec.Selector) != api {
				t.Errorf("the service and %s with the roles %s do not fit", d.Metadata.Name, env["MEDILAB_ROLES"])
			}
			guarded := slices.ContainsFunc(all["PodDisruptionBudget"], func(o object) bool {
				return o.Spec.MaxUnavailable == 1 && selected(o, o.Spec.Selector["matchLabels"])
			})
			if guarded != (d.Spec.Replicas > 1) || !selected(d, d.Spec.Selector["matchLabels"]) {
				t.Errorf("%s with %d replicas: guarded %v", d.Metadata.Name, d.Spec.Replicas, guarded)
			}
		}
		for _, role := range []string{"api", "saga", "worker", "projections"} {
			if !strings.Contains(roles, role) {
				t.Errorf("nobody has the role %s", role)
			}
		}
		if n := len(all["NetworkPolicy"]); n != 1 || !slices.Equal(all["NetworkPolicy"][0].Spec.PolicyTypes, []string{"Ingress", "Egress"}) {
			t.Errorf("%d network policies", n)
		}
	}
	if out, err := prints(t, nil, helm, "template", "clinic", "docs/deploy/helm", "--kube-version", "1.31.0", "--set", "nodes.all.roles=api"); err == nil || !strings.Contains(out, "no group has the role saga") {
		t.Errorf("a chart in which nobody makes calls: %v %s", err, out)
	}
}

// The unit is valid and confined.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	analyze := installed(t, "systemd-analyze")
	unit := filepath.Join(t.TempDir(), "medilab-webhooks.service")
	text := strings.Replace(read(t, "docs/deploy/medilab-webhooks.service"), "/usr/bin/medilab-webhooks", harness.Program(t), 1)
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := mustPrint(t, nil, analyze, "verify", "--man=no", unit); strings.Contains(out, filepath.Base(unit)) {
		t.Errorf("the unit: %s", out)
	}
	mustPrint(t, nil, analyze, "security", "--offline=true", "--no-pager", "--threshold=20", unit) // of 100: 14 when written
}

// The package installs, upgrades, keeps what an operator changed, and leaves nothing but data.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	nfpm, dpkg := tool(t, "MEDILAB_NFPM", "nfpm"), installed(t, "dpkg")
	if os.Geteuid() != 0 {
		t.Skip("dpkg needs root")
	}
	root, packages := smallRoot(t), t.TempDir()
	build := func(version string) string {
		name := filepath.Join(packages, version+".deb")
		mustPrint(t, []string{"BINARY=" + harness.Program(t), "ARCH=amd64", "DEB_VERSION=" + version, "SOURCE_DATE_EPOCH=1700000000"},
			nfpm, "package", "--config", "docs/deploy/nfpm.yaml", "--packager", "deb", "--target", name)
		return name
	}
	run := func(args ...string) {
		t.Helper()
		mustPrint(t, nil, dpkg, append([]string{"--root=" + root, "--force-depends", "--force-architecture", "--force-confold"}, args...)...)
	}
	old := build("1.0.0")
	run("-i", old)
	settings := filepath.Join(root, "etc/medilab-webhooks.env")
	if info, err := os.Stat(settings); err != nil || info.Mode() != 0o600 {
		t.Errorf("the settings, which may hold secrets: %v %v", info, err)
	}
	if err := os.WriteFile(settings, []byte("MEDILAB_ADDR=127.0.0.1:9999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := mustPrint(t, nil, filepath.Join(root, "usr/bin/medilab-webhooks"), "version")
	if !strings.HasPrefix(said, "medilab-webhooks ") {
		t.Errorf("the program says %s", said)
	}
	run("-i", build("1.1.0"))
	if text, err := os.ReadFile(settings); err != nil || !strings.Contains(string(text), ":9999") {
		t.Errorf("after the upgrade the settings are %s: %v", text, err)
	}
	data := filepath.Join(root, "var/lib/private/medilab-webhooks")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	run("-r", "medilab-webhooks")
	if _, err := os.Stat(settings); err != nil {
		t.Errorf("a removal takes the settings: %v", err)
	}
	run("-P", "medilab-webhooks")
	for _, gone := range []string{"etc/medilab-webhooks.env", "usr/bin/medilab-webhooks", "usr/lib/systemd/system/medilab-webhooks.service"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("the data folder is gone: %v", err)
	}

	again := filepath.Join(t.TempDir(), "again.deb")
	first, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(build("1.0.0"), again); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(again); err != nil || !bytes.Equal(first, second) {
		t.Errorf("two packages of one binary differ: %v", err)
	}
}

// smallRoot makes a folder that the package's scripts can run in as their root: a shell, what
// they call, and dpkg's records. MEDILAB_DEBIAN_ROOT names a whole Debian to take instead, as
// `mmdebstrap --variant=minbase bookworm FOLDER` makes one.
func smallRoot(t *testing.T) string {
	t.Helper()
	if root := os.Getenv("MEDILAB_DEBIAN_ROOT"); root != "" {
		return root
	}
	root := t.TempDir()
	mustPrint(t, nil, "sh", "-euc", `
		mkdir -p "$1/bin" "$1/var/lib/dpkg/info" "$1/var/lib/dpkg/updates" "$1/etc" "$1/tmp"
		touch "$1/var/lib/dpkg/status" "$1/var/lib/dpkg/available"
		for program in sh rm echo; do
			path=$(readlink -f "$(command -v "/bin/$program")")
			cp "$path" "$1/bin/$program"
			for library in $(ldd "$path" | grep -o '/[^ ]*'); do
				mkdir -p "$1$(dirname "$library")"
				cp -L "$library" "$1$library"
			done
		done`, "sh", root)
	return root
}
