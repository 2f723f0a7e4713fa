package infofile

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/keys"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadPort(t *testing.T) {
	for text, want := range map[string]uint16{
		"1234": 1234, "1234\n": 1234, " 1234 \r\n\r\n": 1234, "65535": 65535, "1": 1, "\ufeff1357\r\n": 1357, "80\x00\x00": 80,
		"": 0, "0": 0, "65536": 0, "-1": 0, "+80": 0, "12 34": 0, "1234\n5678": 0, "port": 0, "0x50": 0, "1e3": 0, "99999999999999999999": 0,
	} {
		got, err := ReadPort(write(t, PortName, text))
		if got != want || (err == nil) != (want != 0) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	if _, err := ReadPort(filepath.Join(t.TempDir(), PortName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestReadTransfer(t *testing.T) {
	want := Transfer{"127.0.0.1:1234", "Michael Jackson", "specs/New_product_spec.docx"}
	for _, text := range []string{
		"127.0.0.1:1234\nMichael Jackson\nspecs/New_product_spec.docx",
		"127.0.0.1:1234\r\nMichael Jackson\r\nspecs/New_product_spec.docx\r\n",
		"\ufeff 127.0.0.1:1234 \n\tMichael Jackson \n\n specs/New_product_spec.docx\n\n \n",
	} {
		if got, err := ReadTransfer(write(t, TransferName, text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a\nb", "a\nb\nc\nd", strings.Repeat("\n", 100), strings.Repeat("x", 70_000)} {
		if _, err := ReadTransfer(write(t, TransferName, text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	got, err := ReadTransfer(write(t, TransferName, "[::1]:1256\nn\nf"))
	if err != nil || got.Server != "[::1]:1256" {
		t.Errorf("IPv6: %+v, %v", got, err)
	}
}

func testMe(t *testing.T) Me {
	t.Helper()
	key, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return Me{
		Name: "Michael Jackson",
		ID:   codec.ClientID{0x64, 0xf3, 0xf6, 0x3e, 0x98, 0x5f, 0x4b, 0xeb, 0x81, 0xa0, 0xe4, 0x3f, 0xd8, 0x80, 0xa1, 0x24},
		Key:  key,
	}
}

func keyBase64(t *testing.T, me Me) string {
	t.Helper()
	der, err := keys.MarshalPrivate(me.Key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func equal(a, b Me) bool { return a.Name == b.Name && a.ID == b.ID && a.Key.Equal(b.Key) }

func writeMe(path string, me Me) error {
	text, err := me.Text()
	if err != nil {
		return err
	}
	return Replace(path, text, 0o600)
}

func TestMeAsTheDocumentsHaveIt(t *testing.T) {
	me := testMe(t)
	path := filepath.Join(t.TempDir(), MeName)
	if err := writeMe(path, me); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "Michael Jackson\n64f3f63e985f4beb81a0e43fd880a124\n" + keyBase64(t, me) + "\n"
	if string(b) != want {
		t.Errorf("wrote %q, want %q", b, want)
	}
	if info, _ := os.Stat(path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: others can read the private key", info.Mode())
	}
	if got, err := ReadMe(path); err != nil || !equal(got, me) {
		t.Errorf("read back %+v, %v", got, err)
	}
	other := testMe(t)
	if err := writeMe(path, other); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadMe(path); err != nil || !equal(got, other) {
		t.Errorf("not replaced: %+v, %v", got, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// A reader sees the old file or the new one, never a half: writeMe must not
// write into the file that is there.
func TestMeIsReplacedAtOnce(t *testing.T) {
	me := testMe(t)
	path := filepath.Join(t.TempDir(), MeName)
	if err := writeMe(path, me); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := writeMe(path, testMe(t)); err != nil {
		t.Fatal(err)
	}
	oldInfo, _ := old.Stat()
	newInfo, _ := os.Stat(path)
	if os.SameFile(oldInfo, newInfo) {
		t.Error("the same file was written to")
	}
}

func TestMeOfOthers(t *testing.T) {
	me := testMe(t)
	key := keyBase64(t, me)
	const name, id = "Michael Jackson", "64f3f63e985f4beb81a0e43fd880a124"
	broken := ""
	for s := key; ; s = s[72:] {
		if len(s) <= 72 {
			broken += s + "\n"
			break
		}
		broken += s[:72] + "\n"
	}
	for what, text := range map[string]string{
		"no last line end":  name + "\n" + id + "\n" + key,
		"CRLF":              name + "\r\n" + id + "\r\n" + key + "\r\n",
		"old Mac":           name + "\r" + id + "\r" + key,
		"lines of 72":       name + "\n" + id + "\n" + broken,
		"lines of 72, CRLF": strings.ReplaceAll(name+"\n"+id+"\n"+broken, "\n", "\r\n"),
		"blank lines":       "\n" + name + "\n\n" + id + "\n \n" + broken + "\n\n",
		"upper case":        name + "\n" + strings.ToUpper(id) + "\n" + key,
		"dashes":            name + "\n64f3f63e-985f-4beb-81a0-e43fd880a124\n" + key,
		"NUL padding":       name + strings.Repeat("\x00", 240) + "\n" + id + "\x00\n" + key + "\x00\x00",
		"spaces":            name + "\n " + id + " \n" + key[:40] + " " + key[40:],
		"no padding":        name + "\n" + id + "\n" + strings.TrimRight(key, "="),
		"PEM":               name + "\n" + id + "\n-----BEGIN PRIVATE KEY-----\n" + broken + "-----END PRIVATE KEY-----\n",
		"blanks at the end": name + " \t \n" + id + "\t\n" + key + " \n",
		"blanks in front":   "  " + name + "\n" + id + "\n" + key + "\n",
		"byte order mark":   "\ufeff" + name + "\n" + id + "\n" + key,
	} {
		if got, err := ReadMe(write(t, MeName, text)); err != nil || !equal(got, me) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestRubbishMeStays(t *testing.T) {
	me := testMe(t)
	key := keyBase64(t, me)
	const name, id = "Michael Jackson", "64f3f63e985f4beb81a0e43fd880a124"
	for _, text := range []string{
		"", "\n\n\n", name, name + "\n" + id, name + "\n" + id + "\nAAAA", name + "\n" + id + "\n!!!", name + "\n" + id + "\n" + key[:100],
		name + "\n" + id[1:] + "\n" + key, name + "\n" + id + "00\n" + key, name + "\nx" + id[1:] + "\n" + key,
		"J\xfcrgen\n" + id + "\n" + key, strings.Repeat("x", 255) + "\n" + id + "\n" + key, strings.Repeat("A", 1<<20),
	} {
		path := write(t, MeName, text)
		if _, err := ReadMe(path); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.60q: %v", text, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%.60q: touched", text)
		}
	}
}

func TestNoMeCanBeWritten(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "not", "there", MeName)
	if err := writeMe(missing, testMe(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writeMe: %v", err)
	}
	dir := t.TempDir()
	// A directory in the way: the temporary file must go.
	if err := os.Mkdir(filepath.Join(dir, MeName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeMe(filepath.Join(dir, MeName), testMe(t)); err == nil {
		t.Error("wrote over a directory")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("writeMe left %v", entries)
	}
}

func TestPrivateKeyFile(t *testing.T) {
	me, other := testMe(t), testMe(t)
	der, err := keys.MarshalPrivate(me.Key)
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string]string{
		"Base64": keyBase64(t, me) + "\n",
		"DER":    string(der),
	} {
		path := write(t, PrivateKeyName, content)
		mePath := filepath.Join(filepath.Dir(path), MeName)
		if FindPrivateKeyFile(mePath, other.Key) != nil {
			t.Errorf("%s: found for another key", what)
		}
		f := FindPrivateKeyFile(mePath, me.Key)
		if f == nil {
			t.Fatalf("%s: not found", what)
		}
		update(t, f, other.Key)
		if FindPrivateKeyFile(mePath, other.Key) == nil {
			t.Errorf("%s: does not hold the new key", what)
		}
		b, _ := os.ReadFile(path)
		if isText := strings.HasPrefix(string(b), "MII"); isText != (what == "Base64") {
			t.Errorf("%s: changed its form", what)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if r, err := f.Reserve(me.Key); r != nil || err != nil {
			t.Errorf("%s: room for a file that is gone: %v", what, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: created", what)
		}
	}
}

// update puts another key into the file.
func update(t *testing.T, f *PrivateKeyFile, key *rsa.PrivateKey) {
	t.Helper()
	r, err := f.Reserve(key)
	if err != nil {
		t.Fatal(err)
	}
	content, err := f.Content(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(content); err != nil {
		t.Fatal(err)
	}
}

func FuzzReadMe(f *testing.F) {
	f.Add("Michael Jackson\n64f3f63e985f4beb81a0e43fd880a124\nMIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJc\n")
	f.Add("\x00\n\r\x00\n-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), MeName)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		me, err := ReadMe(path)
		if err != nil {
			return
		}
		if err := writeMe(path, me); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadMe(path); err != nil || fmt.Sprint(again.Name, again.ID) != fmt.Sprint(me.Name, me.ID) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
