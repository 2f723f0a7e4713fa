package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/storage/files"
)

// tree is what is below dir, by name: the mode of a folder, and the mode and content
// of a file.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		all[name] = info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			all[name] += " " + string(content)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The first start makes a key for its owner alone, and each start logs the
// fingerprint by which it is known from then on, whatever the registry is.
func TestOwnPair(t *testing.T) {
	for _, registry := range []string{registrySQLite, registryMemory} {
		t.Run(registry, func(t *testing.T) {
			o, logged := tlsOptions(t.TempDir())
			o.Storage.Registry = registry
			var first tlskey.Fingerprint
			for i := range 3 {
				s, err := Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				got := shown(t, s.tls)
				if i == 0 {
					first = got
				}
				read, err := Fingerprint(o.Dir)
				if got != first || read != first || err != nil {
					t.Errorf("start %d: shown %v, read %v, %v, want %v", i, got, read, err, first)
				}
				if n := logged.FilterMessage("TLS key").FilterField(zap.Stringer("fingerprint", first)).Len(); n != i+1 {
					t.Errorf("start %d: the fingerprint is logged %d times", i, n)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if n := logged.FilterMessage("a TLS key was made").Len(); n != 1 {
				t.Errorf("a key was made %d times", n)
			}
			modes := fmt.Sprint(modesIn(t, filepath.Join(o.Dir, pairFolder)))
			if want := "[. drwx------ cert.pem -rw------- key.pem -rw-------]"; modes != want && runtime.GOOS != "windows" {
				t.Errorf("there is %s, want %s", modes, want)
			}
		})
	}
}

// modesIn are names and modes, in their order.
func modesIn(t *testing.T, dir string) (all []string) {
	t.Helper()
	for name, what := range tree(t, dir) {
		mode, _, _ := strings.Cut(what, " ")
		all = append(all, name+" "+mode)
	}
	slices.Sort(all)
	return all
}

// Whatever a process leaves that is killed while it makes the pair, the next start
// has the same key, if there was one, and removes the rest.
func TestKilledWhileThePairIsMade(t *testing.T) {
	model := t.TempDir()
	if made, err := makePair(model, testNow); !made || err != nil {
		t.Fatal(made, err)
	}
	certPath, keyPath := ownPair(model)
	cert, key := read(t, certPath), read(t, keyPath)
	fingerprint, err := Fingerprint(model)
	if err != nil {
		t.Fatal(err)
	}
	// Each file is first a temporary one that grows, and then in its place.
	type step struct {
		name  string
		files map[string]string
		known bool // the key was in its place
	}
	steps := []step{{"nothing", nil, false}, {"the folder", map[string]string{}, false}}
	for n := 0; n <= len(key); n += 40 {
		steps = append(steps, step{fmt.Sprint(n, " bytes of the key"), map[string]string{".key.pem.ABCDEFGH.tmp": key[:n]}, false})
	}
	steps = append(steps, step{"the key", map[string]string{"key.pem": key}, true})
	for n := 0; n <= len(cert); n += 50 {
		steps = append(steps, step{fmt.Sprint(n, " bytes of the certificate"), map[string]string{"key.pem": key, ".cert.pem.ABCDEFGH.tmp": cert[:n]}, true})
	}
	steps = append(steps, step{"all", map[string]string{"key.pem": key, "cert.pem": cert}, true})
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			o, logged := tlsOptions(t.TempDir())
			if s.files != nil {
				if err := os.Mkdir(filepath.Join(o.Dir, pairFolder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for name, content := range s.files {
				write(t, o.Dir, "tls/"+name, content)
			}
			before, err := Fingerprint(o.Dir)
			if s.known && (before != fingerprint || err != nil) || !s.known && !errors.Is(err, errNoPair) {
				t.Errorf("before the start: %v, %v", before, err)
			}
			got := shown(t, protect(t, o))
			if s.known && got != fingerprint {
				t.Errorf("shown %v, the key was %v", got, fingerprint)
			}
			if made := logged.FilterMessage("a TLS key was made").Len() == 1; made == s.known {
				t.Errorf("a key was made: %v", made)
			}
			if again := shown(t, protect(t, o)); again != got {
				t.Errorf("at the next start %v, at the first %v", again, got)
			}
			if all := tree(t, filepath.Join(o.Dir, pairFolder)); len(all) != 3 {
				t.Errorf("left: %v", all)
			}
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// A pair that cannot be used keeps the server from starting, with what to do, and
// stays as it is.
func TestBrokenPair(t *testing.T) {
	other := t.TempDir()
	if _, err := makePair(other, testNow); err != nil {
		t.Fatal(err)
	}
	otherCert, otherKey := ownPair(other)
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"the key is lost", func(t *testing.T, dir string) { remove(t, dir, "tls/key.pem") }, errKeyLost.Error()},
		{"the key is empty", func(t *testing.T, dir string) { write(t, dir, "tls/key.pem", "") }, errKeyKind.Error()},
		{"the key is rubbish", func(t *testing.T, dir string) { write(t, dir, "tls/key.pem", "rubbish") }, errKeyKind.Error()},
		{"the key is a certificate", func(t *testing.T, dir string) { write(t, dir, "tls/key.pem", read(t, otherCert)) }, errKeyKind.Error()},
		{"the key is cut", func(t *testing.T, dir string) {
			write(t, dir, "tls/key.pem", read(t, filepath.Join(dir, "tls/key.pem"))[:150])
		}, errKeyKind.Error()},
		{"the key is another", func(t *testing.T, dir string) { write(t, dir, "tls/key.pem", read(t, otherKey)) }, "cert.pem"},
		{"the key is a folder", func(t *testing.T, dir string) {
			remove(t, dir, "tls/key.pem")
			write(t, dir, "tls/key.pem/file", "")
		}, "key.pem: want a regular file"},
		{"the key is a link that leads nowhere", func(t *testing.T, dir string) {
			remove(t, dir, "tls/key.pem")
			remove(t, dir, "tls/cert.pem")
			if err := os.Symlink("away", filepath.Join(dir, "tls/key.pem")); err != nil {
				t.Skip("links need a right there that few users have: ", err)
			}
		}, "key.pem: file does not exist"},
		{"the certificate is empty", func(t *testing.T, dir string) { write(t, dir, "tls/cert.pem", "") }, "certificate"},
		{"the certificate is rubbish", func(t *testing.T, dir string) { write(t, dir, "tls/cert.pem", "rubbish") }, "certificate"},
		{"the certificate is another's", func(t *testing.T, dir string) { write(t, dir, "tls/cert.pem", read(t, otherCert)) }, "cert.pem"},
		{"the folder is a file", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "tls")); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "tls", "")
		}, "tls"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, _ := tlsOptions(t.TempDir())
			if _, err := makePair(o.Dir, testNow); err != nil {
				t.Fatal(err)
			}
			tc.spoil(t, o.Dir)
			before := tree(t, filepath.Join(o.Dir, pairFolder))
			s, err := Open(t.Context(), o)
			if s != nil || err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(Hint(err), "put "+filepath.Join(o.Dir, "tls")+" back") {
				t.Errorf("Open: %v, %v, want %q; hint %q", s, err, tc.want, Hint(err))
			}
			if _, err := Fingerprint(o.Dir); err == nil || Hint(err) == "" {
				t.Errorf("Fingerprint: %v, hint %q", err, Hint(err))
			}
			if after := tree(t, filepath.Join(o.Dir, pairFolder)); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("there is %v, there was %v", after, before)
			}
		})
	}
}

// Where a server does not start, because its database was lost or another one has the
// directory, it makes no key.
func TestNoKeyForAServerThatDoesNotStart(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(t *testing.T, dir string)
		want error
	}{
		{"database lost", func(t *testing.T, dir string) { write(t, dir, "files/"+codec.ClientID{1}.String()+"/f", "x") }, ErrNoRecords},
		{"another server", func(t *testing.T, dir string) { open(t, options(dir)) }, files.ErrLocked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, _ := tlsOptions(t.TempDir())
			tc.set(t, o.Dir)
			if s, err := Open(t.Context(), o); s != nil || !errors.Is(err, tc.want) {
				t.Errorf("Open: %v, %v, want %v", s, err, tc.want)
			}
			if _, err := os.Lstat(filepath.Join(o.Dir, pairFolder)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is a folder %s: %v", pairFolder, err)
			}
		})
	}
}

// A key of which others may read the file is served with a warning.
func TestOwnPairThatIsOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs modes of files")
	}
	o, logged := tlsOptions(t.TempDir())
	protect(t, o)
	if err := os.Chmod(filepath.Join(o.Dir, "tls/key.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	const warning = "the file of the TLS key is open to others"
	if n := logged.FilterMessage(warning).Len(); n != 0 {
		t.Errorf("warned %d times of a key that is not", n)
	}
	protect(t, o)
	if n := logged.FilterMessage(warning).Len(); n != 1 {
		t.Errorf("warned %d times", n)
	}
}

// Where there is no key yet, the fingerprint is an error that says so, and nothing is
// made.
func TestFingerprintWithoutAKey(t *testing.T) {
	dir := t.TempDir()
	if _, err := Fingerprint(dir); !errors.Is(err, errNoPair) || !strings.Contains(Hint(err), "first start") {
		t.Errorf("Fingerprint: %v, hint %q", err, Hint(err))
	}
	if all := tree(t, dir); len(all) != 1 {
		t.Errorf("made %v", all)
	}
	if _, err := Fingerprint(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) && Hint(err) == "" {
		t.Errorf("Fingerprint: %v, hint %q", err, Hint(err))
	}
	write(t, dir, "f", "rubbish")
	if _, err := FingerprintOfFile(filepath.Join(dir, "f")); !errors.Is(err, errNoCertificate) {
		t.Errorf("FingerprintOfFile: %v", err)
	}
}

// A server on a backup is known by the same fingerprint, also where the backup was
// made while there was only a key. A directory without one makes a backup as before.
func TestBackupKeepsTheFingerprint(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(t *testing.T, dir string)
		want int // files of the pair in the copy
	}{
		{"whole", func(*testing.T, string) {}, 2},
		{"key alone", func(t *testing.T, dir string) { remove(t, dir, "tls/cert.pem") }, 1},
		{"none", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "tls")); err != nil {
				t.Fatal(err)
			}
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, _ := tlsOptions(t.TempDir())
			s := open(t, o)
			before := shown(t, s.tls)
			tc.set(t, o.Dir)
			to := filepath.Join(t.TempDir(), "copy")
			err := Backup(t.Context(), Stores{Dir: o.Dir}, to, func(int64, int64) {}, func(File, error) { t.Error("a file is wrong") })
			if err != nil {
				t.Fatal(err)
			}
			if tc.want > 0 {
				modes := modesIn(t, filepath.Join(to, pairFolder))
				if len(modes) != tc.want+1 || strings.Contains(strings.Join(modes, " "), "r-") && runtime.GOOS != "windows" {
					t.Errorf("the copy has %v", modes)
				}
			}
			o.Dir = to
			if after := shown(t, open(t, o).tls); (after == before) != (tc.want > 0) {
				t.Errorf("the server was known by %v, on the copy by %v", before, after)
			}
		})
	}
}

// No error and no line of the log quotes the private key, whatever is wrong.
func TestTheKeyIsNeverTold(t *testing.T) {
	o, logged := tlsOptions(t.TempDir())
	s := open(t, o)
	p := s.tls
	certPath, keyPath := ownPair(o.Dir)
	cert, key := read(t, certPath), read(t, keyPath)
	lines := strings.Split(key, "\n")
	var told []string
	for _, spoilt := range []struct{ cert, key string }{
		{key, cert}, {key, key}, {cert, lines[1]}, {cert, key[1:]}, {cert, lines[0] + "\n" + lines[1]}, {cert, lines[0] + "\n" + lines[1] + "\n-----END PRIVATE KEY-----\n"},
		{cert, strings.ReplaceAll(key, "PRIVATE KEY", lines[1])}, {lines[1], key}, {"", key}, {cert, key + key},
		{strings.ReplaceAll(key, "PRIVATE KEY", lines[1]), key},
	} {
		write(t, "", certPath, spoilt.cert)
		write(t, "", keyPath, spoilt.key)
		p.look(true)
		_, err := openProtection(&o)
		told = append(told, fmt.Sprint(err, Hint(err)))
		_, err = Fingerprint(o.Dir)
		told = append(told, fmt.Sprint(err, Hint(err)))
	}
	for _, entry := range logged.All() {
		told = append(told, fmt.Sprint(entry.Message, entry.ContextMap()))
	}
	if logged.FilterLevelExact(zap.ErrorLevel).Len() == 0 {
		t.Error("nothing was wrong")
	}
	for _, text := range told {
		for i := 0; i+12 <= len(lines[1]); i++ {
			if strings.Contains(text, lines[1][i:i+12]) {
				t.Errorf("told a part of the key: %s", text)
				break
			}
		}
	}
}
