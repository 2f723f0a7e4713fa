//go:build unix

package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The manual page of each program has every option that its help has, and what a page should
// have besides; groff finds nothing wrong with it.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	option := regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`)
	for program, commands := range map[string][]string{
		sealift:  {"", "send", "conform"},
		sealiftd: {"", "serve", "backup", "clients", "take-strays", "health", "client delete", "file take", "file delete"},
	} {
		page := manual(t, dir, program)
		for _, command := range commands {
			for _, m := range option.FindAllStringSubmatch(run(t, dir, program, append(strings.Fields(command), "--help")...).succeeded(t).stdout, -1) {
				if m[1] != "--help" && !strings.Contains(page, `\fB`+strings.ReplaceAll(m[1], "-", `\-`)+`\fR`) {
					t.Errorf("%s %s: the page has no %s", filepath.Base(program), command, m[1])
				}
			}
		}
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS", "SEE ALSO"} {
			if !strings.Contains(page, `.SH "`+section+`"`) {
				t.Errorf("%s: the page has no %s", filepath.Base(program), section)
			}
		}
		if groff, err := exec.LookPath("groff"); err == nil {
			r := run(t, dir, groff, "-man", "-Kutf8", "-Tutf8", "-ww", "-z", filepath.Base(program)+".1")
			if r.status != 0 || r.stderr != "" {
				t.Errorf("groff: %d, %s", r.status, r.stderr)
			}
		}
	}
}

// manual has a program write its page to dir, and returns it.
func manual(t *testing.T, dir, program string) string {
	t.Helper()
	runEnv(t, dir, []string{"SOURCE_DATE_EPOCH=1790000000"}, program, "man", "--to", dir).succeeded(t)
	return string(get(t, filepath.Join(dir, filepath.Base(program)+".1")))
}

// Each shell gets a script, and the program answers what such a script asks.
func TestCompletions(t *testing.T) {
	dir := t.TempDir()
	for program, asked := range map[string][2]string{
		sealift: {"send --parall", "--parallel\t"}, sealiftd: {"config sh", "show\t"},
	} {
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			script := run(t, dir, program, "completion", shell).succeeded(t).stdout
			if !strings.Contains(script, filepath.Base(program)+" ") {
				t.Errorf("%s completion %s:\n%s", filepath.Base(program), shell, script)
			}
		}
		r := run(t, dir, program, append([]string{"__complete"}, strings.Fields(asked[0])...)...).succeeded(t)
		if !strings.HasPrefix(r.stdout, asked[1]) {
			t.Errorf("%s %s: %s", filepath.Base(program), asked[0], r.stdout)
		}
		if bash, err := exec.LookPath("bash"); err == nil {
			put(t, filepath.Join(dir, "script"), []byte(run(t, dir, program, "completion", "bash").stdout))
			run(t, dir, bash, "-n", "script").succeeded(t)
		}
	}
}
