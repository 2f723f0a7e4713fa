//go:build linux && !race

package deploy

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sealift/internal/testservices"
)

// Two servers on a PostgreSQL and a bucket, behind HAProxy, as deploy/cluster/local.sh
// runs them, do what docs/SCALING.md says.
func TestCluster(t *testing.T) {
	need(t, "haproxy", "setpriv")
	testservices.Need(t, testservices.HasPostgres())
	testservices.Need(t, testservices.HasS3())
	output(t, "bash", filepath.Join(top, "deploy/cluster/local.sh"), "bash", filepath.Join(top, "test/deploy/cluster.sh"))
}

// service is what is read of one in the compose file.
type service struct {
	Image, Build any
	Environment  map[string]string
	Volumes      []string
	DependsOn    any `yaml:"depends_on"`
	Networks     any
	Secrets      []struct{ Source, Target string }
}

// No engine runs here. So the compose file is read: what it refers to is there, and the
// settings of its servers are settings.
func TestComposeFile(t *testing.T) {
	text := read(t, filepath.Join(top, "deploy/cluster/compose.yaml"))
	values := regexp.MustCompile(`\$\{(SEALIFT_[A-Z_]+):\?[^}]*\}`)
	for _, m := range values.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(text, m[1]+`=%s\n`) {
			t.Errorf("the top does not say how %s is made", m[1])
		}
	}
	var file struct {
		Services                   map[string]service
		Secrets, Volumes, Networks map[string]any
	}
	if err := yaml.Unmarshal(values.ReplaceAll([]byte(text), []byte("0123456789abcdef")), &file); err != nil {
		t.Fatal(err)
	}
	servers := 0
	for name, s := range file.Services {
		if s.Image == nil {
			t.Errorf("%s has no image", name)
		}
		for _, dep := range names(s.DependsOn) {
			if _, ok := file.Services[dep]; !ok {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
		for _, network := range names(s.Networks) {
			if _, ok := file.Networks[network]; !ok {
				t.Errorf("%s is in the network %s", name, network)
			}
		}
		for _, secret := range s.Secrets {
			if _, ok := file.Secrets[secret.Source]; !ok {
				t.Errorf("%s has the secret %s", name, secret.Source)
			}
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			_, ok := file.Volumes[from]
			if strings.HasPrefix(from, "./") {
				_, err := os.Stat(filepath.Join(top, "deploy/cluster", from))
				ok = err == nil
			}
			if !ok {
				t.Errorf("%s has the volume %s", name, from)
			}
		}
		if strings.HasPrefix(name, "sealiftd-") {
			servers++
			checkSettings(t, name, s.Environment)
			if !strings.Contains(read(t, filepath.Join(top, "deploy/cluster/haproxy.cfg")), name+":1256") {
				t.Errorf("HAProxy does not know %s", name)
			}
		}
	}
	if servers != 2 {
		t.Errorf("%d servers", servers)
	}
	if _, err := exec.LookPath("docker"); err == nil && exec.Command("docker", "compose", "version").Run() == nil {
		cmd := exec.Command("docker", "compose", "-f", filepath.Join(top, "deploy/cluster/compose.yaml"), "config", "-q")
		cmd.Env = append(os.Environ(), "SEALIFT_DATABASE_PASSWORD=x", "SEALIFT_BUCKET_PASSWORD=x", "SEALIFT_ADMIN_TOKEN=x")
		finish(t, cmd)
	}
}

// names are those in a list, or the keys of a map.
func names(list any) (all []string) {
	switch list := list.(type) {
	case []any:
		for _, name := range list {
			all = append(all, fmt.Sprint(name))
		}
	case map[string]any:
		all = slices.Collect(maps.Keys(list))
	}
	return all
}

// checkSettings has sealiftd look at settings from the environment, but for the file that
// the engine makes.
func checkSettings(t *testing.T, name string, env map[string]string) {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(env["SEALIFT_ADMIN_TOKEN_FILE"]), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dist(t), runtime.GOARCH, "bin/sealiftd"), "config", "show")
	cmd.Env = append(os.Environ(), "SEALIFT_DIR="+t.TempDir())
	for key, value := range env {
		if key == "SEALIFT_ADMIN_TOKEN_FILE" {
			value = token
		}
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	shown := finish(t, cmd)
	for key := range env {
		flag := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, "SEALIFT_")), "_", "-")
		if strings.HasPrefix(key, "SEALIFT_") && !strings.Contains(shown, key) {
			t.Errorf("%s: %s is no setting (%s):\n%s", name, key, flag, shown)
		}
	}
	check := exec.Command(cmd.Path, "config", "check")
	check.Env = cmd.Env
	// It comes as far as the database, whose name means nothing here.
	if out, err := check.CombinedOutput(); err == nil || !strings.Contains(string(out), "lookup postgres") {
		t.Errorf("%s: config check: %v: %s", name, err, out)
	}
}
